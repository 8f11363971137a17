"""What a run tells its arms after each answer, and the share of it that is wrong on purpose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from app.exceptions import ConfigurationError
from benchmarks.data import Question
from benchmarks.grading import Gold, Graders, UnreadableGold

_SEED = "label noise"


class FeedbackLevel(StrEnum):
    """The first three tell all that the one before tells."""

    NONE = "none"
    BINARY = "binary"
    """Whether the answer was right."""
    LABEL = "label"
    """The right answer as well."""
    CORRECTION = "correction"
    """Of open tasks: the reference answer, as somebody's better one. Nobody says whether an answer
    was right."""

    def covers(self, other: FeedbackLevel) -> bool:
        """Whether it tells what the other one does."""
        return other in _COVERED[self]


_COVERED = {
    FeedbackLevel.NONE: {FeedbackLevel.NONE},
    FeedbackLevel.BINARY: {FeedbackLevel.NONE, FeedbackLevel.BINARY},
    FeedbackLevel.LABEL: {FeedbackLevel.NONE, FeedbackLevel.BINARY, FeedbackLevel.LABEL},
    # An example needs an answer, which a correction is as well.
    FeedbackLevel.CORRECTION: {
        FeedbackLevel.NONE,
        FeedbackLevel.LABEL,
        FeedbackLevel.CORRECTION,
    },
}


@dataclass(frozen=True, slots=True)
class Feedback:
    """What an arm is told about its answer, as a client would tell the API."""

    right: bool
    """Whether it was; False of a correction, which says that there is a better one."""
    label: str | None = None
    """The right answer, where the run's feedback gives it."""
    correction: str | None = None
    """A better answer in full, of an open task."""

    @property
    def answer(self) -> str | None:
        """What an example of it would say."""
        return self.label if self.correction is None else self.correction

    def as_body(self) -> dict[str, Any]:
        """Fields of `POST /v1/feedback`."""
        if self.correction is not None:
            return {"correction": self.correction}
        return {"verified": self.right} if self.label is None else {"label": self.label}


class Graded(Protocol):
    """A question with its gold answer, read."""

    @property
    def question(self) -> Question: ...

    @property
    def gold(self) -> Gold: ...


@dataclass(frozen=True, slots=True)
class WrongLabel:
    """What an arm is told to be the right answer of a question, and is not."""

    label: str
    gold: Gold
    """The wrong label, read as a gold answer: who believes it judges answers by it."""


async def wrong_labels(
    items: Sequence[Graded], share: float, labels: Sequence[str], graders: Graders
) -> dict[str, WrongLabel]:
    """By question id, for a seeded `share` of the items, in [0, 1], one of the `labels` that is
    graded as wrong there; the answers of other questions where the task has no labels. Raises
    `ConfigurationError` where there is no other answer."""
    rng = random.Random(_SEED)
    known = sorted(set(labels) or {item.question.gold for item in items})
    chosen = rng.sample(list(items), round(share * len(items)))
    return {item.question.id: await _another(item, known, graders, rng) for item in chosen}


async def _another(
    item: Graded, known: Sequence[str], graders: Graders, rng: random.Random
) -> WrongLabel:
    question = item.question
    for label in rng.sample(known, len(known)):
        if (await item.gold.grade(label)).score == 1.0:
            continue
        try:
            gold = await graders.get(question.grader).read(label, question.prompt)
        except UnreadableGold:
            continue
        return WrongLabel(label, gold)
    raise ConfigurationError("--label-noise needs a task with more than one answer")
