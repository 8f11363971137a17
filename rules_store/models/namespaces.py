"""What administration reads and writes: namespaces and their settings, events, jobs, rollbacks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from rules_store.errors import InvalidSetting
from rules_store.models.rules import JobState, Pruning, Rule, RuleState

MAX_ACTOR_CHARS = 128
"""As an event keeps it."""
MOST_COUNT = 10**12
MOST_RULES = 30
MOST_RETENTION_DAYS = 36_500
POLICIES = ("gated", "paper")

_RANGES: dict[str, tuple[float, float]] = {
    "sample_rate": (0, 1),
    "calls_per_hour": (0, MOST_COUNT),
    "tokens_per_hour": (0, MOST_COUNT),
    "capacity": (1, MOST_COUNT),
    "max_positive": (0, MOST_RULES),
    "max_negative": (0, MOST_RULES),
    "similarity_floor": (-1, 1),
    "retention_days": (1, MOST_RETENTION_DAYS),
}
_FRACTIONS = ("sample_rate", "similarity_floor")


@dataclass(frozen=True, slots=True)
class NamespaceSettings:
    """What one namespace does differently from the service; None follows the service.

    Raises InvalidSetting, which names the field.
    """

    policy: str | None = None
    learn: bool | None = None
    sample_rate: float | None = None
    """Share of steered requests that are learned from."""
    calls_per_hour: int | None = None
    tokens_per_hour: int | None = None
    capacity: int | None = None
    """Active rules."""
    pruning: Pruning | None = None
    max_positive: int | None = None
    max_negative: int | None = None
    similarity_floor: float | None = None
    retention_days: int | None = None
    """Age at which an episode (question, answer, trace) is deleted; None keeps it for good."""

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy not in POLICIES:
            raise InvalidSetting("policy", f"must be one of {', '.join(POLICIES)}")
        if self.learn is not None and not isinstance(self.learn, bool):
            raise InvalidSetting("learn", "must be true or false")
        if self.pruning is not None and self.pruning not in list(Pruning):
            raise InvalidSetting("pruning", f"must be one of {', '.join(Pruning)}")
        for name, (least, most) in _RANGES.items():
            _check_number(name, getattr(self, name), least, most)

    def changed(self, changes: Mapping[str, Any]) -> NamespaceSettings:
        """With these in place of its own; None goes back to the service's. Raises
        InvalidSetting."""
        for name in changes:
            if name not in SETTING_NAMES:
                raise InvalidSetting(name, "is no setting of a namespace")
        return NamespaceSettings(**{**asdict(self), **changes})

    def as_json(self) -> dict[str, Any]:
        """What is set, as it is stored."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> NamespaceSettings:
        """As `as_json` wrote it; a later version's settings are passed over."""
        known = {name: value for name, value in stored.items() if name in SETTING_NAMES}
        if "pruning" in known:
            known["pruning"] = Pruning(known["pruning"])
        return cls(**known)


SETTING_NAMES = frozenset(each.name for each in fields(NamespaceSettings))


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if value is None:
        return
    kinds = (int, float) if name in _FRACTIONS else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise InvalidSetting(name, "must be a number" if name in _FRACTIONS else "must be whole")
    if not least <= value <= most:  # false for NaN
        raise InvalidSetting(name, f"must be from {least} to {most}")


DEFAULTS = NamespaceSettings()


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    created_at: datetime
    frozen: bool = False
    """Nothing of it is learned from, and its rules can't be changed."""
    settings: NamespaceSettings = DEFAULTS


@dataclass(frozen=True, slots=True)
class NamespaceSummary:
    """A namespace with exact counts at one moment."""

    namespace: Namespace
    paused: bool
    """Its learning jobs wait, whether by its own pause or by that of all namespaces."""
    rules: dict[str, int] = field(default_factory=dict)
    """By state."""
    episodes: dict[str, int] = field(default_factory=dict)
    """By status."""
    jobs: dict[str, int] = field(default_factory=dict)
    """By state."""


@dataclass(frozen=True, slots=True)
class DeletedNamespace:
    name: str
    event: int
    rules: int
    episodes: int
    jobs: int
    events: int


@dataclass(frozen=True, slots=True)
class NamespaceSnapshot:
    """A named point of a namespace's history: its rules as of the event of that number."""

    event: int
    label: str
    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What happened in one hour or day from `start` (UTC)."""

    start: datetime
    episodes: int = 0
    learned: int = 0
    """Episodes of then that something was learned from."""
    rules_created: int = 0
    rules_merged: int = 0
    rules_retired: int = 0


@dataclass(frozen=True, slots=True)
class EventFilter:
    within: Collection[str] | None = None
    """Only of these namespaces; None: of all."""
    namespace: str | None = None
    rule_id: str | None = None
    kind: str | None = None
    """One kind, or with a dot at its end every kind that begins so (`rule.`)."""
    actor: str | None = None
    since_event: int | None = None
    """This one and later ones."""
    until_event: int | None = None
    """This one and earlier ones."""
    since: datetime | None = None
    until: datetime | None = None


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
    episode_id: str
    namespace: str
    state: JobState
    attempts: int
    last_error: str | None
    not_before: datetime
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """The point in a namespace's history to go back to: exactly one of the three."""

    event: int | None = None
    time: datetime | None = None
    snapshot: str | None = None
    """A snapshot's label."""


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule that a rollback changes. `created_later`: it was not there then, so it retires."""

    before: Rule
    after: Rule
    created_later: bool


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback does, or would do."""

    namespace: str
    to_event: int
    before_event: int
    """The namespace's last event before the rollback: rolling back to it undoes the rollback."""
    changes: tuple[RuleChange, ...]
    event: int | None = None
    """The event of the rollback; None where it only would be done."""

    @property
    def unembedded(self) -> list[Rule]:
        """Rules that come back into the index with a text or trigger that they have now no
        vectors of."""
        return [
            change.after
            for change in self.changes
            if change.after.state in (RuleState.ACTIVE, RuleState.CANDIDATE)
            and (change.after.text, change.after.trigger)
            != (change.before.text, change.before.trigger)
        ]
