"""Values that cross the border of the store, immutable and plain: no SQL, no FAISS."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rules_store.policy.gate import DEFAULT_GATE, GateOptions
from rules_store.states import EpisodeStatus as EpisodeStatus
from rules_store.states import JobState as JobState
from rules_store.states import Polarity as Polarity
from rules_store.states import Pruning as Pruning
from rules_store.states import RuleSort as RuleSort
from rules_store.states import RuleState as RuleState

Vector = NDArray[np.float32]
"""One embedding, shape (dimension,). The store normalises to unit length what it is given."""


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
    owner: str | None = None
    """Who holds the lease. With `attempts` it is the proof that a result may be written."""
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
    namespaces: frozenset[str] | None = None
    """Only of these; None: of all."""
    polarity: Polarity | None = None
    state: RuleState | None = None
    domain: str | None = None
    text: str | None = None
    """Substring of text or trigger in any case (on SQLite: of ASCII letters)."""
    source_episode: str | None = None
    created_after: datetime | None = None
    """Aware; this moment and later."""
    created_before: datetime | None = None
    """Aware; earlier than this moment."""
    min_exposures: int | None = None
    max_exposures: int | None = None
    min_frequency: int | None = None
    min_lift: float | None = None
    """Rules of which nothing has been measured have no lift, so they are none of these."""
    max_lift: float | None = None


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    namespace: str | None = None
    namespaces: frozenset[str] | None = None
    """Only of these; None: of all."""
    status: EpisodeStatus | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Embeddings of one rule under the store's model; None where there is no text to embed, or
    where it could not be embedded yet."""

    text: Vector | None = None
    trigger: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """The n rules that a search found, most similar first, and the cosines between their texts,
    shape (n, n), for diversification (MMR)."""

    hits: tuple[RuleHit, ...]
    cosines: NDArray[np.float32]


NOTHING_NEAR = Near((), np.zeros((0, 0), dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One distilled rule on its way into the store: state ACTIVE or QUARANTINED (with reason)."""

    rule: NewRule
    vectors: Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Vectors for a stored rule as it was at `version`; dropped when the rule has changed since."""

    rule_id: str
    version: int
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Spend:
    """What learning cost upstream: requests sent, prompt and completion tokens together."""

    calls: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """Outcome of `apply_learning`."""

    learned: tuple[Learned, ...] = ()
    evicted: tuple[str, ...] = ()
    """Ids of the rules that were retired to keep within the capacity."""
    already: bool = False
    """True: this job had been applied before and nothing was changed now."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Outcome of `begin_episode`. The episode exists in either case."""

    episode_id: str
    duplicate_of: str | None = None
    """Id of the episode that came first under the same request id."""
    same_body_as: str | None = None
    """Id of the latest earlier episode with the same body hash within the retry window."""

    @property
    def duplicate(self) -> bool:
        return self.duplicate_of is not None


@dataclass(frozen=True, slots=True)
class Parity:
    """The index against SQL, for this process and its embedding model."""

    indexed: int
    """Rules in the index (active and candidate)."""
    stored: int
    """Active and candidate rules in SQL."""
    unembedded: int
    """Of these, rules that still lack a vector of the current embedding model."""
    behind: int
    """Events that the index has not seen yet."""

    @property
    def ok(self) -> bool:
        return self.indexed == self.stored and self.behind == 0


@dataclass(frozen=True, slots=True)
class Stats:
    """Exact counts at one moment."""

    namespaces: int
    rules: dict[str, int]
    """By state."""
    rules_by_polarity: dict[str, int]
    """Active rules only."""
    rules_by_namespace: dict[str, dict[str, int]]
    """Namespace -> state -> rules."""
    episodes: dict[str, int]
    """By status."""
    jobs: dict[str, int]
    """By state."""
    last_event: int


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What an operator may tune. Times are in seconds."""

    capacity: int = 1000
    """Active rules per namespace; one more retires another (`pruning`)."""
    pruning: Pruning = Pruning.FIFO
    merge_threshold: float = 0.95
    """Cosine of two rule texts from which they are the same rule."""
    busy_timeout: float = 5.0
    """How long a write waits for a database that another one keeps locked."""
    begin_timeout: float = 2.0
    """The same for `begin_episode`, which a client waits for."""
    lease: float = 15.0
    """A running job that is not heard of for this long may be taken by another worker."""
    max_attempts: int = 5
    retry_delay: float = 2.0
    """Before the second attempt; doubles with each further one, up to five minutes."""
    retry_window: float = 300.0
    """Within which an equal body counts as a client's retry (`Begun.same_body_as`)."""
    gate: GateOptions = DEFAULT_GATE
    half_life_days: float = 30.0
    """In which evidence about a rule's worth loses half of its weight."""
    precedents: int = 2000
    """Explored questions that a namespace keeps for replays."""
    pool_size: int = 4
    """Database connections; on SQLite one more, which alone writes."""


EVERY_RULE = RuleFilter()
EVERY_EPISODE = EpisodeFilter()
NO_VECTORS = Vectors()
NO_SPEND = Spend()
DEFAULT_OPTIONS = StoreOptions()
