"""What a rule is worth: Beta posteriors of the outcome with it and without it, and their lift.

An outcome is a number v in [0, 1] with a weight w in (0, 1]. It adds w * v to the hits and
w * (1 - v) to the misses of a tally: the Beta-Bernoulli update with fractional evidence, that is a
power prior (Ibrahim and Chen, "Power prior distributions for regression models", Statistical
Science 2000). Evidence loses half of its weight in every half-life, as exponential forgetting has
it, so a tally of any age is brought to another moment by one factor.

Lift is the difference of the two posterior means, in [-1, 1]. Its interval takes the difference of
two independent Beta variables for normal: mean +- z * sqrt(var_with + var_without). Both start from
the same prior, so a rule without evidence has lift 0 and a wide interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

PRIOR = 1.0
"""Hits and misses of the prior, each: Beta(1, 1) is uniform."""
Z95 = 1.959963984540054
"""Two-sided 95 % of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Weighted hits and misses, as of one moment."""

    hits: float = 0.0
    misses: float = 0.0

    def plus(self, value: float, weight: float) -> Tally:
        """With one more outcome; a negative weight takes one back."""
        # Taking back what was added must not leave the dust of rounding below zero.
        return Tally(
            max(0.0, self.hits + weight * value), max(0.0, self.misses + weight * (1.0 - value))
        )

    def aged(self, factor: float) -> Tally:
        return Tally(self.hits * factor, self.misses * factor)

    @property
    def size(self) -> float:
        return self.hits + self.misses

    @property
    def mean(self) -> float:
        """Posterior mean."""
        return (PRIOR + self.hits) / (2 * PRIOR + self.size)

    @property
    def variance(self) -> float:
        """Posterior variance: m (1 - m) / (alpha + beta + 1)."""
        mean = self.mean
        return mean * (1.0 - mean) / (2 * PRIOR + self.size + 1.0)


NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class Lift:
    """Outcome with the rule less outcome without it: mean and 95 % credible interval."""

    mean: float
    low: float
    high: float

    @property
    def deviation(self) -> float:
        """Standard deviation of the posterior, of the normal approximation."""
        return (self.high - self.low) / (2.0 * Z95)


def lift(with_rule: Tally, without_rule: Tally) -> Lift:
    """The interval may reach beyond [-1, 1]: it is that of the normal approximation, uncut."""
    mean = with_rule.mean - without_rule.mean
    half = Z95 * math.sqrt(with_rule.variance + without_rule.variance)
    return Lift(mean, mean - half, mean + half)


UNKNOWN_LIFT = lift(NOTHING, NOTHING)


def retention(since: datetime, until: datetime, half_life_days: float) -> float:
    """Share of its weight that evidence of `since` has at `until`; above 1 where that is earlier,
    which is how evidence that comes late is brought to a tally's moment."""
    days = (until - since).total_seconds() / 86_400.0
    # Clocks jump: a century of difference must neither overflow nor wipe a tally out.
    return float(2.0 ** max(-60.0, min(60.0, -days / half_life_days)))
