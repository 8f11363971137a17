"""What clients say about answers, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from rules_store.models.evidence import Outcome, Precedent
from rules_store.models.examples import NewExample
from rules_store.models.rules import Vector


class FeedbackSource(StrEnum):
    """The strongest signal that a feedback carries, weakest first."""

    CLIENT = "client"
    LABEL = "label"
    """A label, or a correction."""
    VERIFIER = "verifier"


@dataclass(frozen=True, slots=True)
class NewFeedback:
    """At least one of score, label, verified, correction and outdated."""

    score: float | None = None
    """In [0, 1]."""
    label: str | None = None
    """The right answer, as somebody knows it."""
    verified: bool | None = None
    """Whether a verifier found the answer right."""
    correction: str | None = None
    """A better answer in full."""
    outdated: bool = False
    """What the episode has taught is right no more."""
    comment: str | None = None
    key: str | None = None
    """The client's own: the same one for the same episode is counted once."""

    @property
    def source(self) -> FeedbackSource:
        if self.verified is not None:
            return FeedbackSource.VERIFIER
        known = self.label is not None or self.correction is not None
        return FeedbackSource.LABEL if known else FeedbackSource.CLIENT

    @property
    def says_something(self) -> bool:
        return self.outdated or any(
            each is not None for each in (self.score, self.label, self.verified, self.correction)
        )


@dataclass(frozen=True, slots=True)
class FeedbackEffect:
    """What followed from a feedback, in its own transaction."""

    right: bool | None = None
    """Whether it found the answer right; None where it does not say."""
    example: str | None = None
    """The example that it made or confirmed."""
    example_state: str | None = None
    """As it was then; `candidate`: a job looks for a worked-out answer."""
    lesson: bool = False
    """Whether a job will distil rules from it."""
    retired: tuple[str, ...] = ()
    """Examples that it retired."""
    skipped: str | None = None
    """Why it made no example."""


NO_EFFECT = FeedbackEffect()


@dataclass(frozen=True, slots=True)
class Feedback:
    id: str
    episode_id: str
    namespace: str
    source: FeedbackSource
    score: float | None
    label: str | None
    verified: bool | None
    correction: str | None
    outdated: bool
    comment: str | None
    key: str | None
    effect: FeedbackEffect
    created_at: datetime
    key_id: str | None = None
    """Who gave it."""


@dataclass(frozen=True, slots=True, eq=False)
class Teaching:
    """What a feedback says and is to lead to; found out before its transaction."""

    learns: bool = False
    """Whether anything at all may follow from it."""
    right: bool | None = None
    outcome: Outcome | None = None
    """What it says about the answer; None is no evidence."""
    example: NewExample | None = None
    """In place of the other examples of the same episode."""
    wrong: str | None = None
    """Text of the episode's own answer where that was wrong: it is no example any more."""
    vector: Vector | None = None
    """Of the question, shape (d,); None where it could not be made."""
    job: dict[str, Any] | None = None
    """Payload of a lesson to be distilled."""
    votes: Mapping[str, float] = field(default_factory=dict)
    """By example that the episode was shown: 1.0 where its label was the right one, else 0.0."""
    precedent: Precedent | None = None
    """The labelled question, for replays."""
    skipped: str | None = None
    """Why there is no example."""


NO_TEACHING = Teaching()


@dataclass(frozen=True, slots=True)
class Completion:
    """A worked-out right answer for an example that is a candidate for want of one."""

    example_id: str
    answer: str
