"""Observations and explorations as JSON: what an episode keeps, and what a job resumes from.

Token log-probabilities are not kept; the perplexity that was made of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.domain.bounds import bounded
from app.domain.trajectory import (
    Assessment,
    Case,
    Contrast,
    Message,
    Observation,
    Role,
    Selection,
    Task,
    Trajectory,
)
from rules_store.models.episodes import Episode
from rules_store.models.examples import ExampleHit, Trust
from rules_store.models.rules import Polarity, RuleHit


def contrast_to_json(selection: Selection) -> dict[str, Any]:
    """What the distiller needs of a selection: the two sides and the answers that were given."""

    def side(trajectory: Trajectory | None) -> dict[str, Any] | None:
        if trajectory is None:
            return None
        return {
            "role": trajectory.role.value,
            "index": trajectory.index,
            "variant": trajectory.variant,
            "text": trajectory.text,
        }

    return {
        "case": selection.case.value,
        "task": selection.task.value,
        "better": side(selection.better),
        "worse": side(selection.worse),
        "judged": [asdict(judged) for judged in selection.judged],
        "agreement": selection.agreement,
    }


def contrast_from_json(data: dict[str, Any]) -> Selection:
    def side(row: dict[str, Any] | None) -> Trajectory | None:
        return None if row is None else Trajectory(**{**row, "role": Role(row["role"])})

    return Selection(
        case=Case(data["case"]),
        task=Task(data["task"]),
        chosen=None,
        better=side(data["better"]),
        worse=side(data["worse"]),
        judged=tuple(Assessment(**judged) for judged in data["judged"]),
        agreement=data.get("agreement"),
    )


def lesson_contrast(selection: Selection) -> dict[str, Any]:
    """What the trace of a lesson keeps of right and wrong."""
    assert selection.better is not None, "a lesson has both sides"
    assert selection.worse is not None, "a lesson has both sides"
    return {"better": bounded(selection.better.text), "worse": bounded(selection.worse.text)}


def contrast_of(episode: Episode) -> Contrast | None:
    """The two sides of an episode's latest lesson, else of its exploration; None where it has kept
    none."""
    lessons = episode.trace.get("lessons", {}).values()
    verified = [each["contrast"] for each in lessons if "contrast" in each]
    if verified:
        return Contrast(episode.question, **verified[-1], verified=True)
    chosen = episode.trace.get("selection") or {}
    texts = {row["name"]: row["text"] for row in episode.trace.get("trajectories", ())}
    better, worse = texts.get(chosen.get("better")), texts.get(chosen.get("worse"))
    return Contrast(episode.question, better, worse) if better and worse else None


def observation_to_json(observation: Observation) -> dict[str, Any]:
    examples = [
        {**asdict(hit), "verified_at": hit.verified_at.isoformat()} for hit in observation.examples
    ]
    return {
        **asdict(observation),
        "messages": list(observation.messages),
        "examples": examples,
    }


def observation_from_json(data: dict[str, Any]) -> Observation:
    hits = tuple(RuleHit(**{**hit, "polarity": Polarity(hit["polarity"])}) for hit in data["hits"])
    return Observation(
        **{
            **data,
            "messages": tuple(data["messages"]),
            "task": Task(data["task"]),
            "hits": hits,
            "examples": tuple(_example(hit) for hit in data.get("examples", ())),
        }
    )


def _example(data: dict[str, Any]) -> ExampleHit:
    verified_at = datetime.fromisoformat(data["verified_at"])
    return ExampleHit(**{**data, "trust": Trust(data["trust"]), "verified_at": verified_at})


_OF_EPISODE = ("episode_id", "namespace", "model", "question")
"""Fields of an observation that are the episode's own."""


def request_to_json(observation: Observation, sent: Sequence[Message] | None) -> dict[str, Any]:
    """What an episode keeps of a request that feedback may be learned from: its observation, with
    the messages only where others went out (`sent`)."""
    kept = observation_to_json(observation)
    if sent is not None and kept["messages"] == list(sent):
        kept["messages"] = None
    return {name: value for name, value in kept.items() if name not in _OF_EPISODE}


def observation_of(episode: Episode) -> Observation | None:
    """The request of an episode, as the loop would see it; None where it was not kept."""
    kept = episode.trace.get("request") or {}
    messages = kept.get("messages") or episode.trace.get("messages_sent")
    if "task" not in kept or not messages:
        return None
    own = {"episode_id": episode.id, "namespace": episode.namespace}
    asked = {"model": episode.model, "question": episode.question, "messages": messages}
    return observation_from_json({**kept, **own, **asked})


def trajectories_to_json(
    trajectories: tuple[Trajectory, ...], selection: Selection | None
) -> list[dict[str, Any]]:
    """One object a trajectory: what was asked, what came, and how it was judged."""
    judged = {j.name: j for j in selection.judged} if selection is not None else {}
    rows = []
    for trajectory in trajectories:
        row: dict[str, Any] = {
            "name": trajectory.name,
            "role": trajectory.role.value,
            "variant": trajectory.variant,
            "text": bounded(trajectory.text),
            "reasoning": None if trajectory.reasoning is None else bounded(trajectory.reasoning),
            "finish_reason": trajectory.finish_reason,
            "failure": trajectory.failure,
            "cost": trajectory.cost.as_dict(),
        }
        if trajectory.name in judged:
            verdict = asdict(judged[trajectory.name])
            row["judged"] = {key: value for key, value in verdict.items() if key != "name"}
        rows.append(row)
    return rows


def selection_to_json(selection: Selection) -> dict[str, Any]:
    def name(trajectory: Trajectory | None) -> str | None:
        return trajectory.name if trajectory is not None else None

    return {
        "case": selection.case.value,
        "task": selection.task.value,
        "chosen": name(selection.chosen),
        "better": name(selection.better),
        "worse": name(selection.worse),
        "agreement": selection.agreement,
        "criterion": selection.criterion,
    }


def hits_to_json(hits: tuple[RuleHit, ...]) -> list[dict[str, Any]]:
    """Rules in the order in which they were injected."""
    return [
        {
            "id": hit.id,
            "polarity": hit.polarity.value,
            "text": hit.text,
            "similarity": round(hit.similarity, 4),
            "position": position,
        }
        for position, hit in enumerate(hits)
    ]


def examples_to_json(hits: tuple[ExampleHit, ...]) -> list[dict[str, Any]]:
    """Examples, nearest first; in the prompt the nearest comes last."""
    return [
        {
            "id": hit.id,
            "question": hit.question,
            "answer": hit.answer,
            "trust": hit.trust.value,
            "similarity": round(hit.similarity, 4),
            "position": position,
        }
        for position, hit in enumerate(hits)
    ]
