"""What a run tells its arms after each answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FeedbackLevel(StrEnum):
    """Each level tells all that the one before tells."""

    NONE = "none"
    BINARY = "binary"
    """Whether the answer was right."""
    LABEL = "label"
    """The right answer as well."""

    def covers(self, other: FeedbackLevel) -> bool:
        levels = list(FeedbackLevel)
        return levels.index(self) >= levels.index(other)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What an arm is told about its answer, as a client would tell the API."""

    right: bool
    label: str | None = None
    """The right answer, where the run's feedback gives it."""
