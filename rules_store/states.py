"""The words that the store knows for kinds and states, as they are stored."""

from __future__ import annotations

from enum import StrEnum


class Polarity(StrEnum):
    POSITIVE = "positive"
    NEGATIVE = "negative"


class RuleState(StrEnum):
    CANDIDATE = "candidate"
    ACTIVE = "active"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


class EpisodeStatus(StrEnum):
    PENDING = "pending"
    LEARNING = "learning"
    LEARNED = "learned"
    SKIPPED = "skipped"
    FAILED = "failed"


class JobState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class RuleSort(StrEnum):
    NEWEST = "newest"
    OLDEST = "oldest"
    USED = "used"
    """Most exposures first, of equals the newest."""


class Pruning(StrEnum):
    """How the `paper` policy makes room at capacity."""

    FIFO = "fifo"
    SIMILARITY = "similarity"
