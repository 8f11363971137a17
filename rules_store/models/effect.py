"""Values about what steering does on live traffic: requests by arm, intervals, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Self

from rules_store.models.evidence import Signal
from rules_store.policy.control import Arm
from rules_store.policy.effect import EffectState, EffectVerdict, Interval

TOLD = (Signal.VERIFIER, Signal.LABEL, Signal.CLIENT)
"""Signals that somebody or something tells, strongest first: the verdict and the guard go by these.
How far answers agree is shown, but an agreed answer needs not be a better one."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What was drawn for a request. `share`: the probability of control."""

    arm: Arm
    share: float
    conversation: str


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was drawn for, as it was answered. `offered`: there was experience that fits,
    given or not. Tokens are None where the upstream has not told them."""

    assignment: Assignment
    offered: bool
    milliseconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    experience_tokens: int = 0
    """Of the prompt, for rules and examples; an estimate."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a namespace is not steered. The interval is the one that is shown, the guard's own is
    stricter."""

    since: datetime
    signal: Signal
    conversations: int
    difference: float
    low: float
    high: float

    @property
    def reason(self) -> str:
        return (
            f"steering harms by {self.signal.value}: {100 * self.difference:+.1f} points "
            f"({100 * self.low:+.1f} to {100 * self.high:+.1f}) "
            f"after {self.conversations} conversations"
        )

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "since": self.since.isoformat(), "signal": self.signal.value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        since, signal = datetime.fromisoformat(stored["since"]), Signal(stored["signal"])
        return cls(**{**stored, "since": since, "signal": signal})


@dataclass(frozen=True, slots=True)
class EffectPoint:
    """The interval as it was after so many conversations."""

    conversations: int
    difference: float
    low: float
    high: float
    at: datetime


@dataclass(frozen=True, slots=True)
class ArmUse:
    """Requests of one arm within the days that a report looks at. Means are None of none."""

    requests: int = 0
    offered: int = 0
    """Of these, for which there was experience that fits."""
    milliseconds: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class ArmOutcomes:
    """Outcomes of the requests of one arm within these days."""

    outcomes: int = 0
    mean: float | None = None


@dataclass(frozen=True, slots=True)
class ToldOutcome:
    """One outcome of a request that was drawn for. `key_id`: who told it."""

    key_id: str
    conversation: str
    arm: Arm
    share: float
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class SignalEffect:
    """What one signal says."""

    signal: Signal
    state: EffectState
    started_at: datetime
    updated_at: datetime
    by_arm: Mapping[Arm, ArmOutcomes] = field(default_factory=dict)
    points: tuple[EffectPoint, ...] = ()

    @property
    def interval(self) -> Interval:
        return self.state.interval()


@dataclass(frozen=True, slots=True, eq=False)
class EffectReport:
    """A namespace's control group. Verdicts and intervals are of conversations since they began to
    be counted, `by_arm` and outcomes by arm of the requests of the last `days`."""

    namespace: str
    days: int
    control_rate: float | str
    share: float
    """That is in force."""
    suspension: Suspension | None
    by_arm: Mapping[Arm, ArmUse]
    signals: tuple[SignalEffect, ...]
    """Strongest first; those with outcomes."""

    @property
    def leading(self) -> SignalEffect | None:
        """The signal that the verdict goes by: the strongest told one that knows, or else the one
        with the most conversations; None while nothing was told."""
        told = [each for each in self.signals if each.signal in TOLD]
        for each in told:
            if each.interval.verdict is not EffectVerdict.UNKNOWN:
                return each
        return max(told, key=lambda each: each.state.count, default=None)

    @property
    def verdict(self) -> EffectVerdict:
        if self.suspension is not None:
            return EffectVerdict.HARMS
        leading = self.leading
        return EffectVerdict.UNKNOWN if leading is None else leading.interval.verdict


class Purpose(StrEnum):
    """What upstream calls of the loop were for."""

    EXPLORATION = "exploration"
    """A request was explored and reflected on in the background."""
    FEEDBACK = "feedback"
    """A lesson from feedback."""
    REPLAY = "replay"
    """A candidate was tried on a stored question."""
    DISTILLER = "distiller"
    """Another model than the served one wrote rules."""


@dataclass(frozen=True, slots=True)
class DaySpend:
    """What the loop spent on one day in UTC: calls and tokens by purpose, and what steering added
    to prompts (tokens of experience, an estimate, in so many requests)."""

    day: date
    calls: Mapping[Purpose, int]
    tokens: Mapping[Purpose, int]
    steered_requests: int = 0
    experience_tokens: int = 0
