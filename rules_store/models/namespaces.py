"""Namespaces and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from rules_store.errors import InvalidSetting
from rules_store.models.rules import Pruning

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
