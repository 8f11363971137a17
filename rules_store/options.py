"""What an operator may tune of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rules_store.models.rules import Pruning
from rules_store.policy.control import AUTO
from rules_store.policy.gate import DEFAULT_GATE, GateOptions


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What an operator may tune. Times are in seconds."""

    capacity: int = 1000
    """Active rules per namespace; one more retires another (`pruning`)."""
    example_capacity: int = 10_000
    """Active examples per namespace."""
    example_days: int | None = None
    """Days that a new example is recalled, unless it has a date of its own; None: for good."""
    pruning: Pruning = Pruning.FIFO
    merge_threshold: float = 0.95
    """Cosine of two rule texts from which they are the same rule."""
    busy_timeout: float = 5.0
    """How long a write waits for a database that another one keeps locked."""
    begin_timeout: float = 2.0
    """The same for `EpisodeOperations.begin`, which a client waits for."""
    lease: float = 15.0
    """A running job that is not heard of for this long may be taken by another worker."""
    max_attempts: int = 3
    retry_delay: float = 2.0
    """Before the second attempt; doubles with each further one, up to five minutes."""
    retry_window: float = 300.0
    """Within which an equal body counts as a client's retry (`EpisodeStart.same_body_as`)."""
    gate: GateOptions = DEFAULT_GATE
    half_life_days: float = 30.0
    """In which evidence about a rule's worth loses half of its weight."""
    precedents: int = 2000
    """Explored questions that a namespace keeps for replays."""
    feedback_keys: int | None = None
    """Keys whose word it takes to promote or retire by feedback, 1 or 2; None: 2 in a namespace
    that more than one key reaches. An operator's key is enough by itself."""
    keys_outside: int = 0
    """Keys that reach every namespace and are not the store's: those of the environment."""
    choices: int = 1000
    """Latest requests of a namespace whose outcomes decide what kinds of experience are given."""
    control_rate: float | Literal["auto"] = AUTO
    """Share of the conversations that are served without experience; `auto`: by the default
    schedule."""
    pool_size: int = 4
    """Database connections; on SQLite one more, which alone writes."""


DEFAULT_OPTIONS = StoreOptions()
