"""What an exploration, a label or a replay says about how well things went, as numbers.

A signal that is missing, or a comparison that fails, is no evidence at all: None, never a zero.
"""

from __future__ import annotations

from collections import Counter

from app.domain.serialization import observation_to_json
from app.domain.trajectory import Case, Observation, Role, Selection, Task, Trajectory
from app.loop.admission.examples import screened
from app.loop.reflect.answers import extract, strip_reasoning
from app.loop.reflect.equivalence import ComparisonUnfinished, Equivalence
from app.loop.reflect.scoring import cosine, exclusion
from app.loop.reflect.selection import json_expected
from app.loop.steer.injector import instructions_of
from app.upstream.embeddings import Embedder
from rules_store.models.evidence import Outcome, Precedent, Reference, Signal, Trial
from rules_store.models.examples import LEAST_AGREED, NewExample, Trust
from rules_store.models.rules import Vector

LONGEST_TEXT = 4000
"""Characters of an example's question, and of its answer: longer ones would fit no prompt."""
LEAST_MAJORITY = 0.6
"""Share of the answers that a consensus must have for a replay to be compared with it."""


def agreement_outcome(selection: Selection) -> Outcome | None:
    """The margin of the leading answer over the next one, as a share of all; None in open tasks,
    and where fewer than two answers could be compared."""
    sizes = _sizes(selection)
    if selection.task is not Task.CLOSED or sum(sizes) < 2:
        return None
    second = sizes[1] if len(sizes) > 1 else 0
    return Outcome(Signal.AGREEMENT, (sizes[0] - second) / sum(sizes))


def precedent_of(
    observation: Observation, selection: Selection, answer: str | None, vector: Vector
) -> Precedent:
    """An explored question as it is kept. `answer` is the Teacher's text."""
    sizes = _sizes(selection)
    closed = selection.task is Task.CLOSED
    agreement = None
    if closed and sum(sizes) >= 2:
        agreement = (sizes[0] + 1) / (sum(sizes) + 2)
    return Precedent(
        episode_id=observation.episode_id,
        namespace=observation.namespace,
        vector=vector,
        agreement=agreement,
        observation=observation_to_json(observation),
        answer=answer,
        reference=_reference(selection),
        reference_kind=Reference.CONSENSUS if closed else Reference.LIKENESS,
    )


def consensus_example(observation: Observation, selection: Selection) -> NewExample | None:
    """What an exploration agreed on wholly, as an example that only a consensus vouches for; None
    in open tasks, of fewer than `LEAST_AGREED` answers, and where the answers had examples to
    copy, so that they agree for that alone."""
    sizes = _sizes(selection)
    better = selection.better
    if selection.task is not Task.CLOSED or better is None or observation.examples:
        return None
    if len(sizes) != 1 or sizes[0] < LEAST_AGREED:
        return None
    answer = strip_reasoning(better.text).strip()
    if not answer or max(len(answer), len(observation.question)) > LONGEST_TEXT:
        return None
    return screened(
        NewExample(
            namespace=observation.namespace,
            question=observation.question,
            answer=answer,
            trust=Trust.CONSENSUS,
            label=_reference(selection),
            domain=observation.domain,
            instructions=instructions_of(observation.messages),
            source_episode=observation.episode_id,
        )
    )[0]


def teacher_text(trajectories: tuple[Trajectory, ...]) -> str | None:
    """The Teacher's answer, if it can be compared with another one."""
    for trajectory in trajectories:
        if trajectory.role is Role.TEACHER and exclusion(trajectory) is None:
            return trajectory.text
    return None


def _reference(selection: Selection) -> str | None:
    if selection.better is None:
        return None
    if selection.task is not Task.CLOSED:
        return strip_reasoning(selection.better.text) if selection.worse is not None else None
    sizes = _sizes(selection)
    if selection.case not in (Case.UNANIMOUS, Case.MAJORITY):
        return None
    if sum(sizes) < 2 or sizes[0] < LEAST_MAJORITY * sum(sizes):
        return None
    better = next((j for j in selection.judged if j.name == selection.better.name), None)
    return None if better is None else better.answer


def _sizes(selection: Selection) -> list[int]:
    """Of the groups of equal answers, largest first."""
    groups = Counter(judged.group for judged in selection.judged if judged.group is not None)
    return sorted(groups.values(), reverse=True)


class Judge:
    """Compares answers with labels and with what an exploration took for right."""

    def __init__(self, equivalence: Equivalence, embedder: Embedder) -> None:
        self._equivalence = equivalence
        self._embedder = embedder

    async def label(self, question: str, answer: str, label: str) -> float | None:
        """1.0 where the text's answer equals the label, 0.0 where it does not; None where there is
        no answer to compare. Raises `ComparisonUnfinished`."""
        found = extract(answer, question)
        if found is None:
            return None
        return float(await self._equivalence.equivalent(found.text, label, question=question))

    async def has_label(self, question: str, answer: str, label: str) -> bool:
        """Whether the text's answer is known to equal the label."""
        try:
            return await self.label(question, answer, label) == 1.0
        except ComparisonUnfinished:
            return False

    async def same(self, one: str, other: str) -> bool | None:
        """Whether two short answers are equal; None where that could not be found out."""
        try:
            return await self._equivalence.equivalent(one, other)
        except ComparisonUnfinished:
            return None

    async def trial(
        self, observation: Observation, precedent: Precedent, replay: Trajectory
    ) -> Trial | None:
        """A replay with the rule against the stored answer without it; None where one of the two
        can't be compared, or not in time."""
        if precedent.reference is None or precedent.answer is None or replay.failure is not None:
            return None
        if exclusion(replay) not in (None, "truncated", "degenerate"):
            return None
        try:
            with_rule = await self._value(observation, precedent, replay.text, exclusion(replay))
            without = await self._value(observation, precedent, precedent.answer, None)
        except ComparisonUnfinished:
            return None
        if with_rule is None or without is None:
            return None
        return Trial(
            precedent.episode_id,
            with_rule,
            without,
            precedent.reference_kind,
            key_id=precedent.label_key_id or precedent.key_id,
        )

    async def _value(
        self, observation: Observation, precedent: Precedent, text: str, fault: str | None
    ) -> float | None:
        assert precedent.reference is not None
        if fault is not None:
            # A rule that makes the model ramble or loop has done harm.
            return 0.0
        if precedent.reference_kind is Reference.LIKENESS:
            plain = strip_reasoning(text)
            if not plain.strip():
                return None
            rows = await self._embedder.embed([plain, precedent.reference])
            return max(0.0, cosine(rows[0], rows[1]))
        expected = json_expected(observation)
        found = extract(text, observation.question, json_expected=expected)
        if found is None:
            return 0.0
        return float(
            await self._equivalence.equivalent(
                found.text, precedent.reference, question=observation.question
            )
        )
