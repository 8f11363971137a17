"""An episode as the pages show it: its trajectories in order, and the two that were contrasted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.console.diff import Piece, compare
from rules_store.models.episodes import Episode


@dataclass(frozen=True, slots=True)
class TrajectoryView:
    """One trajectory. `side` is better, worse or None; perplexity of 1 is certainty."""

    name: str
    variant: str
    text: str
    reasoning: str | None
    finish_reason: str | None
    failure: str | None
    exclusion: str | None
    answer: str | None
    group: int | None
    perplexity: float | None
    similarity: float | None
    side: str | None
    picked: str | None
    """`y+` or `y-` where it was one of the two that the rules were made of."""
    chosen: bool
    """Whether its text is the answer that the client got."""
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EpisodeView:
    trajectories: list[TrajectoryView]
    better: TrajectoryView | None
    worse: TrajectoryView | None
    case: str | None
    task: str | None
    agreement: float | None
    criterion: str | None


CASES = {
    "unanimous": "All usable answers were equal, so only a positive rule could be learned.",
    "majority": "A majority agreed and others did not: both sides could teach.",
    "tie": "Several groups were equally large; the one with the lower mean perplexity won.",
    "scattered": "Every answer was different: nothing is learned, the Teacher's answer stands.",
    "contrasted": "The answers were far enough apart to be told into better and worse.",
    "homogeneous": "The answers were too much alike for a negative rule.",
    "unusable": "Fewer than two answers could be used: nothing is learned.",
}


def evidence_of(episode: Episode) -> EpisodeView:
    """What the trace holds. Its texts are a model's and its shape is older versions' too, so
    nothing is taken for granted."""
    trace = episode.trace
    selection: dict[str, Any] = trace.get("selection") or {}
    shown = [_shown(row, selection) for row in trace.get("trajectories") or []]
    better = next((each for each in shown if each.picked == "y+"), None)
    worse = next((each for each in shown if each.picked == "y-"), None)
    if better is not None and worse is not None:
        right, wrong = compare(better.text, worse.text)
        better.pieces.extend(right)
        worse.pieces.extend(wrong)
    else:
        for each in (better, worse):
            if each is not None:
                each.pieces.append(Piece(each.text, False))
    return EpisodeView(
        trajectories=shown,
        better=better,
        worse=worse,
        case=selection.get("case"),
        task=selection.get("task"),
        agreement=selection.get("agreement"),
        criterion=selection.get("criterion"),
    )


def _shown(row: dict[str, Any], selection: dict[str, Any]) -> TrajectoryView:
    judged: dict[str, Any] = row.get("judged") or {}
    name = str(row.get("name"))
    sides = {True: "better", False: "worse"}
    picked = {selection.get("better"): "y+", selection.get("worse"): "y-"}
    return TrajectoryView(
        name=name,
        variant=str(row.get("variant") or ""),
        text=str(row.get("text") or ""),
        reasoning=row.get("reasoning"),
        finish_reason=row.get("finish_reason"),
        failure=row.get("failure"),
        exclusion=judged.get("exclusion"),
        answer=judged.get("answer"),
        group=judged.get("group"),
        perplexity=judged.get("perplexity"),
        similarity=judged.get("similarity"),
        side=sides.get(judged["better"]) if "better" in judged else None,
        picked=picked.get(name),
        chosen=selection.get("chosen") == name,
    )
