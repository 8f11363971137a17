"""Episodes: one request and its answer, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

PLAYGROUND = "playground"
"""Why a request is skipped that somebody made only to look at what experience does."""


class EpisodeStatus(StrEnum):
    PENDING = "pending"
    LEARNING = "learning"
    LEARNED = "learned"
    SKIPPED = "skipped"
    FAILED = "failed"


class Verdict(StrEnum):
    """What feedback said of an answer, by a half of the score where it gave one."""

    GOOD = "good"
    BAD = "bad"
    ANY = "any"
    """Something at all."""


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
    reason: str | None = None
    text: str | None = None
    """Substring of question or answer in any case (on SQLite: of ASCII letters)."""
    created_after: datetime | None = None
    """Aware; this moment and later."""
    created_before: datetime | None = None
    """Aware; earlier than this moment."""
    feedback: Verdict | None = None
    """Only those of which somebody has said this."""


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
