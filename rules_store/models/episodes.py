"""Episodes: one request and its answer, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class EpisodeStatus(StrEnum):
    PENDING = "pending"
    LEARNING = "learning"
    LEARNED = "learned"
    SKIPPED = "skipped"
    FAILED = "failed"


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
    key_id: str | None = None
    """Who asked."""


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    namespace: str | None = None
    namespaces: frozenset[str] | None = None
    """Only of these; None: of all."""
    status: EpisodeStatus | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """Outcome of `EpisodeOperations.begin`. The episode exists in either case."""

    episode_id: str
    duplicate_of: str | None = None
    """Id of the episode that came first under the same request id."""
    same_body_as: str | None = None
    """Id of the latest earlier episode with the same body hash within the retry window."""

    @property
    def duplicate(self) -> bool:
        return self.duplicate_of is not None


EVERY_EPISODE = EpisodeFilter()
