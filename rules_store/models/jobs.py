"""Learning jobs, and what learning costs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobKind(StrEnum):
    """What a job learns from."""

    EPISODE = "episode"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class JobFilter:
    within: Collection[str] | None = None
    """Only of these namespaces; None: of all."""
    state: JobState | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A learning job as a listing shows it, without its payload."""

    id: int
    kind: JobKind
    episode_id: str
    namespace: str
    state: JobState
    attempts: int
    """Tries that came to an end of their own, and the one under way."""
    lost: int
    """Tries whose process ended before them."""
    last_error: str | None
    not_before: datetime
    created_at: datetime
    updated_at: datetime
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A learning job in the hands of a worker that holds its lease."""

    id: int
    key: str
    """What it is about: the id of the episode, or of the feedback on it."""
    kind: JobKind
    episode_id: str
    namespace: str
    state: JobState
    attempts: int
    payload: dict[str, Any]
    lost: int = 0
    """Tries whose process ended before them."""
    owner: str | None = None
    """Who holds the lease. With `attempts` and `lost` it is the proof that a result may be
    written."""
    last_error: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    key_id: str | None = None
    """Who asked, or gave the feedback."""


@dataclass(frozen=True, slots=True)
class Spend:
    """What learning cost upstream: requests sent, prompt and completion tokens together."""

    calls: int = 0
    tokens: int = 0
    distiller_calls: int = 0
    """Of these, what another model than the served one took to write rules."""
    distiller_tokens: int = 0


NO_SPEND = Spend()
