"""Which kinds of experience a request is given: decided by what came of earlier choices.

The value of an answer, in [0, 1], is taken to be

    base + r [rules] + e [examples] + b [rules and examples]

with a normal prior for each of the four (Bayesian linear regression with a known variance: Gelman
et al., "Bayesian Data Analysis", ch. 14). What is known beforehand is differences, not levels: on
the four streams that were measured (docs/runs) four examples were worth +15, +24, +20 and -6
points, rules that a small model wrote +1, while the base was anything between 0.18 and 0.52. So
the base has a wide prior: that everything is hard is no reason to change what is given.

A choice is a draw from the posterior (Thompson sampling, see `app.loop.steer.retriever`), narrowed
to `DRAW` times its width, and now and then one by lot (`FLOOR`), so that each kind keeps being
tried. Both fade in with the outcomes, by w = size / (size + `SETTLED`): where none come nothing is
learned from trying, and the best of the priors stands. `benchmarks/choice.py` simulates all this.

Near a question the effects may differ from the namespace's. Outcomes of near questions, weighted by
how near they are, move the means by what they say beside the namespace's, shrunk by normal priors
of the deviations `NEAR` (partial pooling); they leave the width of the draw as it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rules_store.policy.lift import NOTHING, Z95, Tally


class Given(StrEnum):
    """Which kinds of experience a request was given."""

    NONE = "none"
    RULES = "rules"
    EXAMPLES = "examples"
    BOTH = "both"

    @classmethod
    def of(cls, *, rules: bool, examples: bool) -> Given:
        return _GIVEN[rules, examples]

    @property
    def has_rules(self) -> bool:
        return self in (Given.RULES, Given.BOTH)

    @property
    def has_examples(self) -> bool:
        return self in (Given.EXAMPLES, Given.BOTH)


_GIVEN = {
    (False, False): Given.NONE,
    (True, False): Given.RULES,
    (False, True): Given.EXAMPLES,
    (True, True): Given.BOTH,
}
_ORDER = tuple(Given)
_DESIGN = np.array(
    [[1, g.has_rules, g.has_examples, g is Given.BOTH] for g in _ORDER], dtype=np.float64
)
"""A row for each kind, a column for each part of its value."""

PRIOR_MEANS = (0.52, 0.01, 0.13, 0.0)
PRIOR_DEVIATIONS = (0.3, 0.05, 0.2, 0.05)
"""That of the examples is wider than the streams were apart: they were few, and of one model."""
NEAR = (0.2, 0.05, 0.1, 0.05)
"""Deviations of a neighbourhood from its namespace."""
FLOOR = 0.03
"""Share of the requests that each kind on offer gets by lot."""
DRAW = 0.4
SETTLED = 10.0
"""Outcomes after which half of the requests are drawn for."""

Tallies = Mapping[Given, Tally]


def on_offer(*, rules: bool, examples: bool) -> tuple[Given, ...]:
    """What can be chosen where there are rules, examples or both; nothing always can."""
    return tuple(
        given for given in _ORDER if given.has_rules <= rules and given.has_examples <= examples
    )


@dataclass(frozen=True, slots=True)
class Belief:
    """What is thought of one kind: posterior mean and 95 % interval of its answers' value; as many
    outcomes as `size` stand behind it, by weight."""

    mean: float
    low: float
    high: float
    size: float


@dataclass(frozen=True, eq=False)
class Beliefs:
    """The posterior of a namespace, or of the neighbourhood of a question in it."""

    tallies: Tallies
    means: NDArray[np.float64]
    """Of the kinds in the order of `Given`, shape (4,)."""
    spread: NDArray[np.float64]
    """A factor L of their covariance L L', shape (4, 4)."""
    parts: NDArray[np.float64]
    """Means of base and effects in the namespace, shape (4,)."""

    @cached_property
    def size(self) -> float:
        return sum(tally.size for tally in self.tallies.values())

    @property
    def exploring(self) -> float:
        """Share of the requests that are drawn for; the others get the best."""
        return self.size / (self.size + SETTLED)

    def of(self, given: Given) -> Belief:
        at = _ORDER.index(given)
        mean = float(self.means[at])
        half = Z95 * float(np.linalg.norm(self.spread[at]))
        size = self.tallies.get(given, NOTHING).size
        return Belief(mean, max(0.0, mean - half), min(1.0, mean + half), size)

    def best(self, offered: Sequence[Given]) -> Given:
        """Of the highest mean; of equal ones the one that gives more."""
        return max(offered, key=lambda each: (self.means[_ORDER.index(each)], _ORDER.index(each)))

    def near(self, tallies: Tallies) -> Beliefs:
        """As moved by the outcomes of near questions; as they are where there are none."""
        sizes, hits = _sums(tallies)
        if not sizes.any():
            return self
        weights, surprise = sizes / _noise(self.tallies), hits - sizes * (_DESIGN @ self.parts)
        precision = np.diag(1.0 / np.square(NEAR)) + (_DESIGN.T * weights) @ _DESIGN
        moved = np.linalg.solve(precision, _DESIGN.T @ surprise / _noise(self.tallies))
        return Beliefs(self.tallies, self.means + _DESIGN @ moved, self.spread, self.parts)


def beliefs_of(tallies: Tallies) -> Beliefs:
    """The posterior that the outcomes of a namespace lead to."""
    sizes, hits = _sums(tallies)
    noise = _noise(tallies)
    prior = np.diag(1.0 / np.square(PRIOR_DEVIATIONS))
    covariance = np.linalg.inv(prior + (_DESIGN.T * sizes / noise) @ _DESIGN)
    parts = covariance @ (prior @ np.array(PRIOR_MEANS) + _DESIGN.T @ hits / noise)
    return Beliefs(tallies, _DESIGN @ parts, _DESIGN @ np.linalg.cholesky(covariance), parts)


def choose(beliefs: Beliefs, offered: Sequence[Given], rng: random.Random) -> Given:
    """One of `offered`, which has at least one; `rng` decides, by the same draws each time."""
    explores, by_lot = rng.random() < beliefs.exploring, rng.random()
    drawn = [rng.gauss(0.0, 1.0) for _ in _ORDER]
    lot = rng.randrange(len(offered))
    if not explores:
        return beliefs.best(offered)
    if by_lot < FLOOR * len(offered):
        return offered[lot]
    values = beliefs.means + DRAW * (beliefs.spread @ np.array(drawn))
    return max(offered, key=lambda each: float(values[_ORDER.index(each)]))


def kernel(cosines: NDArray[np.float32], floor: float) -> NDArray[np.float64]:
    """Weights of outcomes by how near their questions are: 1 for the same, 0 at `floor`."""
    nearness = (cosines.astype(np.float64) - floor) / (1.0 - floor)
    weights: NDArray[np.float64] = np.square(np.clip(nearness, 0.0, 1.0))
    return weights


def _sums(tallies: Tallies) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sizes and hits by kind, shape (4,) each."""
    each = [tallies.get(given, NOTHING) for given in _ORDER]
    return np.array([t.size for t in each]), np.array([t.hits for t in each])


def _noise(tallies: Tallies) -> float:
    """Variance of one outcome: that of a coin that falls as all of them did, from a flat prior."""
    sizes, hits = _sums(tallies)
    mean = (1.0 + float(hits.sum())) / (2.0 + float(sizes.sum()))
    return mean * (1.0 - mean)
