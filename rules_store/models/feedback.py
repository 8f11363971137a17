"""What clients say about answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FeedbackSource(StrEnum):
    """The strongest signal that a feedback carries, weakest first."""

    CLIENT = "client"
    LABEL = "label"
    VERIFIER = "verifier"


@dataclass(frozen=True, slots=True)
class NewFeedback:
    """At least one of score, label and verified."""

    score: float | None = None
    """In [0, 1]."""
    label: str | None = None
    """The right answer, as somebody knows it."""
    verified: bool | None = None
    """Whether a verifier found the answer right."""
    comment: str | None = None
    key: str | None = None
    """The client's own: the same one for the same episode is counted once."""

    @property
    def source(self) -> FeedbackSource:
        if self.verified is not None:
            return FeedbackSource.VERIFIER
        return FeedbackSource.CLIENT if self.label is None else FeedbackSource.LABEL


@dataclass(frozen=True, slots=True)
class Feedback:
    id: str
    episode_id: str
    namespace: str
    source: FeedbackSource
    score: float | None
    label: str | None
    verified: bool | None
    comment: str | None
    key: str | None
    created_at: datetime
