"""Intervals, paired tests and power; everything from scipy and statsmodels.

Scores come as matrices of shape (questions, repeats): a repeat is one seed in one order of the
questions. Questions are the independent units; repeats of one question are not, so they are
averaged before anything is resampled (a cluster bootstrap over questions).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower

Scores = npt.NDArray[np.float64]

CONFIDENCE = 0.95
NORMAL_QUANTILE = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
"""Half the width of an interval in standard errors, where a mean is taken for normal."""
RESAMPLES = 9999
POWER = 0.8
BOOTSTRAP_SEED = 20260
"""Fixed, so that a report made twice from one run is the same twice."""


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float
    method: str
    """`wilson`, `bootstrap`, or `none` where one question gives no interval."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm minus another on the same questions."""

    difference: Interval
    wins: int
    """Questions of the first repeat that only this arm has right."""
    losses: int
    p_value: float | None
    """McNemar's exact test on the first repeat, two-sided; None for graded measures."""
    spread: float
    """Standard deviation over questions of the difference."""


def interval(scores: Scores, *, graded: bool) -> Interval:
    """Mean score with a 95% interval: Wilson for right/wrong answers of a single repeat, else
    the percentile bootstrap over questions."""
    mean = float(scores.mean())
    if not graded and scores.shape[1] == 1:
        test = stats.binomtest(int(scores.sum()), scores.shape[0])
        wilson = test.proportion_ci(CONFIDENCE, method="wilson")
        return Interval(mean, float(wilson.low), float(wilson.high), "wilson")
    return mean_interval(scores.mean(axis=1))


def compare(scores: Scores, baseline: Scores, *, graded: bool) -> Comparison:
    """Paired over questions; both of shape (questions, repeats), the same question in one row."""
    differences = scores.mean(axis=1) - baseline.mean(axis=1)
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    first, other = scores[:, 0], baseline[:, 0]
    wins, losses = int((first > other).sum()), int((first < other).sum())
    p_value = None
    if not graded:
        same = int((first == other).sum())
        # Only the discordant pairs count in the exact test.
        table = [[same, wins], [losses, 0]]
        p_value = float(mcnemar(table, exact=True).pvalue) if wins + losses else 1.0
    return Comparison(mean_interval(differences), wins, losses, p_value, spread)


def mean_interval(values: npt.NDArray[np.float64]) -> Interval:
    """Of the mean of independent values, shape (n,), by the percentile bootstrap."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, mean, mean, "none")
    with warnings.catch_warnings():
        # All values equal: the interval is that point, which scipy warns about.
        warnings.simplefilter("ignore")
        result: Any = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(BOOTSTRAP_SEED),
            batch=1000,
        )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high), "bootstrap")


def questions_needed(difference: float, spread: float) -> int | None:
    """Questions at which a paired test shows a true difference of that size, with 80% power at
    the 5% level; None where the spread of differences is zero and tells nothing."""
    if spread <= 0 or difference == 0:
        return None
    needed = TTestPower().solve_power(
        effect_size=abs(difference) / spread, power=POWER, alpha=1 - CONFIDENCE
    )
    return max(2, int(np.ceil(float(np.squeeze(needed)))))


@dataclass(frozen=True, slots=True)
class StreamPoint:
    position: int
    """Questions answered so far, from 1."""
    cumulative: float
    """Mean score up to here, over all repeats."""
    window: float
    """Mean score of the last questions only."""


def along_stream(by_position: Scores, *, window: int) -> list[StreamPoint]:
    """`by_position` has shape (positions, repeats), in the order in which questions were asked."""
    means = by_position.mean(axis=1)
    sums = np.cumsum(means)
    points = []
    for index in range(len(means)):
        recent = means[max(0, index - window + 1) : index + 1]
        points.append(
            StreamPoint(index + 1, float(sums[index] / (index + 1)), float(recent.mean()))
        )
    return points


def last_third(by_position: Scores) -> Scores:
    """What is scored when most has been learned; at least one position."""
    return by_position[min(2 * len(by_position) // 3, len(by_position) - 1) :]


def halves(by_position: Scores) -> tuple[float, float]:
    """Mean score in the first and in the second half of the stream."""
    middle = len(by_position) // 2
    if middle == 0:
        return float(by_position.mean()), float(by_position.mean())
    return float(by_position[:middle].mean()), float(by_position[middle:].mean())
