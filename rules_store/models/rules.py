"""Rules: as they are stored, as they are found, and as they are on their way in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One embedding, shape (dimension,). The store normalises to unit length what it is given."""


class Polarity(StrEnum):
    POSITIVE = "positive"
    NEGATIVE = "negative"


class RuleState(StrEnum):
    CANDIDATE = "candidate"
    ACTIVE = "active"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


class RuleSort(StrEnum):
    NEWEST = "newest"
    OLDEST = "oldest"
    USED = "used"
    """Most exposures first, of equals the newest."""


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
    written_by: str | None = None
    """The model that wrote it first; None: a person, or it is not known."""


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
    written_by: str | None = None


@dataclass(frozen=True, slots=True)
class LearnedRule:
    """What became of one distilled rule."""

    rule_id: str
    polarity: Polarity
    text: str
    outcome: str
    """created | merged | quarantined"""
    reason: str | None = None


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
    written_by: str | None = None
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


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Embeddings of one rule under the store's model; None where there is no text to embed, or
    where it could not be embedded yet."""

    text: Vector | None = None
    trigger: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The n rules that a search found, most similar first, and the cosines between their texts,
    shape (n, n), for diversification (MMR)."""

    hits: tuple[RuleHit, ...]
    cosines: NDArray[np.float32]


NO_RESULT = SearchResult((), np.zeros((0, 0), dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One distilled rule on its way into the store: state ACTIVE or QUARANTINED (with reason)."""

    rule: NewRule
    vectors: Vectors


@dataclass(frozen=True, slots=True, eq=False)
class RuleEmbedding:
    """Vectors for a stored rule as it was at `version`; dropped when the rule has changed since."""

    rule_id: str
    version: int
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class LearningResult:
    """Outcome of `JobOperations.apply`."""

    learned: tuple[LearnedRule, ...] = ()
    evicted: tuple[str, ...] = ()
    """Ids of the rules that were retired to keep within the capacity."""
    already: bool = False
    """True: this job had been applied before and nothing was changed now."""


EVERY_RULE = RuleFilter()
NO_VECTORS = Vectors()


ShelfKey = tuple[str, Polarity, RuleState]


INDEXED_STATES = (RuleState.ACTIVE, RuleState.CANDIDATE)


@dataclass(frozen=True, slots=True, eq=False)
class IndexRow:
    """What the index needs of one rule; vectors are those of the store's embedding model."""

    seq: int
    id: str
    namespace: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    text_vector: Vector | None
    trigger_vector: Vector | None

    @property
    def key(self) -> ShelfKey:
        return (self.namespace, self.polarity, self.state)
