"""Values that cross the border of the store. Plain frozen dataclasses, no SQL, no FAISS."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


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


class Pruning(StrEnum):
    """How the `paper` policy makes room at capacity."""

    FIFO = "fifo"
    SIMILARITY = "similarity"


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    namespace: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    domain: str
    frequency: int
    exposures: int
    source_episode: str | None
    version: int
    reason: str | None
    """Why it is in its state (the failed admission check of a quarantined rule, say)."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that retrieval found. `similarity` is the cosine of the query to the rule or to its
    trigger, whichever is larger, in [-1, 1]."""

    id: str
    polarity: Polarity
    text: str
    trigger: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    at: datetime
    namespace: str
    kind: str
    rule_id: str | None
    actor: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Episode:
    id: str
    namespace: str
    mode: str
    status: EpisodeStatus
    reason: str | None
    question: str
    answer: str | None
    model: str
    trace: dict[str, Any]
    """`trajectories`, `selection`, `rules_injected`, `rules_learned`, `cost`, `degraded`,
    `messages_sent` (what went upstream, rules block included)."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """A learning job in the hands of a worker that holds its lease."""

    id: int
    episode_id: str
    namespace: str
    state: JobState
    attempts: int
    payload: dict[str, Any]
    last_error: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule to be written: by the loop (one per polarity and job) or by an operator."""

    namespace: str
    polarity: Polarity
    text: str
    trigger: str = ""
    domain: str = "default"
    state: RuleState = RuleState.ACTIVE
    reason: str | None = None
    source_episode: str | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of one distilled rule."""

    rule_id: str
    polarity: Polarity
    text: str
    outcome: str
    """created | merged | quarantined"""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing. `total` is exact, `next_cursor` is None on the last page."""

    items: list[Any]
    total: int
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RuleFilter:
    namespace: str | None = None
    polarity: Polarity | None = None
    state: RuleState | None = None
    domain: str | None = None
    text: str | None = None
    """Case-insensitive substring of text or trigger."""
    source_episode: str | None = None
