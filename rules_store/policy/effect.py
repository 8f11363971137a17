"""Whether steering helps: an interval for the difference between two arms that holds however often
it is looked at.

Requests are drawn as *control* (served without experience) or *steered*. Of each conversation, by
each signal, the first outcome Y in [0, 1] counts, because a conversation stays in one arm: its
later outcomes are no draws of their own. A = 1 where it was steered, with a probability p that was
fixed before the draw and may change from one conversation to the next. With a guess y of the
outcome that was made before it was told, each outcome adds

    Z = (A - p) (Y - y),     E[Z | past] = p (1 - p) d,     |Z| <= c = max(p, 1 - p) max(y, 1 - y)

d being the difference that steering makes for that request: inverse-propensity weighting with the
overlap weights p (1 - p) (Li, Morgan and Zaslavsky, "Balancing covariates via propensity score
weighting", JASA 2018), as the weights keep a rare arm's outcomes bounded. What is estimated is the
average difference theta over the requests, each weighted by p (1 - p); the guess removes variance
and no truth. For every rate r, with psi(x) = -log(1 - x) - x and r <= `LARGEST` / c,

    M(r) = exp( sum of r (Z - p (1 - p) theta) - psi(c r) / c^2 Z^2 )

is a nonnegative supermartingale (Fan, Grama and Liu, "Exponential inequalities for martingales with
applications", EJP 2015, lemma 4.1; it is the empirical Bernstein process of Howard, Ramdas,
McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 2021, theorem 4, with a prediction of zero), and so is the mixture of M over `RATES` by
`WEIGHTS`. By Ville's inequality it reaches 1 / alpha with a probability of alpha at most, at any
time. The values of theta at which neither it nor its mirror image has are the interval: a
*confidence sequence*, as Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, "Anytime-valid
off-policy inference for contextual bandits" (2022) have it for propensities that change.
`benchmarks/effect.py` simulates it. Where the difference changes in time and a rate is cut, theta
is an average with slightly other weights; that there is none stays what it is.

Libraries were looked at: confseq has the boundaries but is built in C++ with Boost for Python up to
3.10; of the others (savvi, expectation, ville, gbstats) the descriptions name no propensity that
changes, and their code was not read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

RATES = np.array([0.0375, 0.075, 0.15, 0.3, 0.6, 1.2])
"""A difference d of outcomes of variance v is found fastest by the rate d / v, at any share."""
WEIGHTS = np.array([0.04, 0.06, 0.2, 0.3, 0.25, 0.15])
LARGEST = 0.75
"""Of c r; from 1 on the inequality says nothing."""
ALPHA = 0.05
"""Chance, at most, that the interval ever misses the truth, of each signal."""
GUARD_ALPHA = 0.005
"""Chance, at most, that the guard ever finds a harm that is none, of each signal."""
OTHERS_ALPHA = 0.05
"""The same of what is left to the guard without any one key's word."""
_PRIOR = 0.5
_LOG_WEIGHTS = np.log(WEIGHTS)
_STEPS = 40
"""Halvings of [-1, 1]: to 2e-12."""


class EffectVerdict(StrEnum):
    """What the interval of a signal says."""

    HELPS = "helps"
    HARMS = "harms"
    UNKNOWN = "not_yet_known"


def step(
    steered: ArrayLike, share: ArrayLike, value: ArrayLike, guess: ArrayLike
) -> tuple[Numbers, Numbers, Numbers]:
    """What one outcome adds: Z, of the shape of the arguments (any, for as many streams at once);
    and the rates r that are used of `RATES` and their penalties psi(c r) / c^2 Z^2, with an axis
    more at the end."""
    p, guess = 1.0 - np.asarray(share, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    bound = np.asarray(np.maximum(p, 1.0 - p) * np.maximum(guess, 1.0 - guess))[..., None]
    z = (np.asarray(steered) - p) * (np.asarray(value) - guess)
    rates = np.minimum(RATES, LARGEST / bound)
    x = bound * rates
    penalties = (-np.log1p(-x) - x) * np.square(np.asarray(z)[..., None] / bound)
    return z, rates, penalties


def evidence(gains: Numbers, penalties: Numbers) -> Numbers:
    """Logarithm of the mixture: `gains` are the sums of r (Z - p (1 - p) theta), with their sign
    turned for the mirror image; the last axis, of the rates, is mixed away."""
    exponents = _LOG_WEIGHTS + gains - penalties
    top = exponents.max(axis=-1, keepdims=True)
    # Of many streams a quarter of the time of `np.logaddexp.reduce`.
    found: Numbers = top[..., 0] + np.log(np.exp(exponents - top).sum(axis=-1))
    return found


@dataclass(frozen=True, slots=True)
class ArmSum:
    """Outcomes of one arm that count: how many, and their sum."""

    count: int = 0
    total: float = 0.0

    def plus(self, value: float) -> ArmSum:
        return ArmSum(self.count + 1, self.total + value)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def guess(self) -> float:
        """Of the next outcome: the mean of all and of two that were `_PRIOR`."""
        return (self.total + 2 * _PRIOR) / (self.count + 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """Steered less control; within [-1, 1]."""

    difference: float | None
    """None while nothing has been drawn for."""
    low: float
    high: float

    @property
    def verdict(self) -> EffectVerdict:
        if self.low > 0:
            return EffectVerdict.HELPS
        return EffectVerdict.HARMS if self.high < 0 else EffectVerdict.UNKNOWN


@dataclass(frozen=True, slots=True, eq=False)
class EffectState:
    """What is kept of the outcomes of one signal: some twenty numbers, whatever came."""

    control: ArmSum
    steered: ArmSum
    moved: float
    """Sum of Z."""
    drawn: float
    """Sum of p (1 - p)."""
    gains: Numbers
    """Sums of r Z for each of `RATES`, shape (6,), as the two that follow."""
    slopes: Numbers
    """Sums of r p (1 - p)."""
    penalties: Numbers
    """Sums of psi(c r) / c^2 Z^2."""

    def plus(self, *, steered: bool, share: float, value: float) -> EffectState:
        """With the outcome of one more conversation. `share`: its probability of control."""
        guess = share * self.steered.guess + (1.0 - share) * self.control.guess
        z, rates, penalties = step(steered, share, value, guess)
        weight = share * (1.0 - share)
        arm = self.steered if steered else self.control
        return replace(
            self,
            control=self.control if steered else arm.plus(value),
            steered=arm.plus(value) if steered else self.steered,
            moved=self.moved + float(z),
            drawn=self.drawn + weight,
            gains=self.gains + rates * z,
            slopes=self.slopes + rates * weight,
            penalties=self.penalties + penalties,
        )

    @property
    def count(self) -> int:
        """Conversations that count."""
        return self.control.count + self.steered.count

    @property
    def variance(self) -> float:
        """Of one outcome, about: that of a coin with the mean of all, from a flat prior. More than
        it is of scores between 0 and 1."""
        mean = (self.control.total + self.steered.total + 1.0) / (self.count + 2.0)
        return mean * (1.0 - mean)

    def interval(self, alpha: float = ALPHA) -> Interval:
        """Of both sides together `alpha`."""
        if self.drawn <= 0.0:
            return Interval(None, -1.0, 1.0)
        difference = min(1.0, max(-1.0, self.moved / self.drawn))
        return Interval(difference, self._low(1.0, alpha / 2), -self._low(-1.0, alpha / 2))

    def above(self, theta: float, alpha: float = ALPHA / 2) -> bool:
        """Whether the difference is shown to be above `theta`: the lower end of the interval is."""
        return self._excludes(theta, 1.0, alpha)

    def below(self, theta: float, alpha: float = ALPHA / 2) -> bool:
        """Whether it is shown to be below `theta`."""
        return self._excludes(-theta, -1.0, alpha)

    def _excludes(self, theta: float, sign: float, alpha: float) -> bool:
        """Whether `sign` times the difference is shown to be above `theta`."""
        gains = sign * self.gains - theta * self.slopes
        return bool(evidence(gains, self.penalties) >= np.log(1.0 / alpha))

    def _low(self, sign: float, alpha: float) -> float:
        """Lower bound of `sign` times the difference."""
        # The more theta, the less the evidence against it.
        low, high = -1.0, 1.0
        if not self._excludes(low, sign, alpha):
            return low
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._excludes(middle, sign, alpha) else (low, middle)
        return low

    def as_json(self) -> dict[str, Any]:
        return {
            "control": [self.control.count, self.control.total],
            "steered": [self.steered.count, self.steered.total],
            "moved": self.moved,
            "drawn": self.drawn,
            "gains": self.gains.tolist(),
            "slopes": self.slopes.tolist(),
            "penalties": self.penalties.tolist(),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(
            control=ArmSum(*stored["control"]),
            steered=ArmSum(*stored["steered"]),
            moved=stored["moved"],
            drawn=stored["drawn"],
            gains=np.array(stored["gains"]),
            slopes=np.array(stored["slopes"]),
            penalties=np.array(stored["penalties"]),
        )


def state_of(steered: ArrayLike, share: ArrayLike, value: ArrayLike) -> EffectState:
    """What `EffectState.plus` makes of these outcomes one after the other, at once."""
    given = np.asarray(steered, dtype=bool)
    p, y = np.asarray(share, dtype=np.float64), np.asarray(value, dtype=np.float64)
    guess = p * _guesses(given, y) + (1.0 - p) * _guesses(~given, y)
    z, rates, penalties = step(given, p, y, guess)
    weights = p * (1.0 - p)
    return EffectState(
        control=ArmSum(int((~given).sum()), float(y[~given].sum())),
        steered=ArmSum(int(given.sum()), float(y[given].sum())),
        moved=float(z.sum()),
        drawn=float(weights.sum()),
        gains=(rates * z[:, None]).sum(axis=0),
        slopes=(rates * weights[:, None]).sum(axis=0),
        penalties=penalties.sum(axis=0),
    )


def _guesses(arm: NDArray[np.bool_], value: Numbers) -> Numbers:
    """`ArmSum.guess` of one arm before each outcome."""
    of_arm = np.where(arm, value, 0.0)
    guesses: Numbers = (np.cumsum(of_arm) - of_arm + 2 * _PRIOR) / (np.cumsum(arm) - arm + 2)
    return guesses


_ZEROS = np.zeros(len(RATES))
NO_OUTCOMES = EffectState(ArmSum(), ArmSum(), 0.0, 0.0, _ZEROS, _ZEROS, _ZEROS)


def outcomes_needed(difference: float, variance: float, share: float) -> float:
    """Conversations with an outcome after which a true difference shows, in about half of all
    cases; about twice as many in nine of ten. Of the best rate r = d / v the evidence grows by
    p (1 - p) d^2 / (2 v) with each, and it has to reach log(2 / alpha) and some 1.5 for the mixture
    and the inequality (fitted to `benchmarks/effect.py`). Infinite where nothing is drawn."""
    weight = share * (1.0 - share)
    if weight <= 0.0 or difference == 0.0:
        return float("inf")
    return float(2.0 * variance * (np.log(2.0 / ALPHA) + 1.5) / (weight * difference**2))
