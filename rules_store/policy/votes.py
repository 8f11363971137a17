"""When an example has to go because of its own label.

An example that was shown for a question whose right label is known has *voted*: right where its own
label is that label. Of a right label a vote is as often right as is usual in the namespace for
questions as near as that one: `usual` is taken of its latest votes, in `BINS` equal groups by
similarity, each the posterior mean of a Beta(1, 1). Of a wrong label (mistaken, or out of its
place) a vote is hardly ever right (`LUCK`). With `WRONG`, the share of examples that are wrong to
begin with, Bayes' rule says how likely this one is wrong,

    odds = WRONG / (1 - WRONG) * product over its votes of  LUCK / usual            (right)
                                                            (1 - LUCK) / (1 - usual)  (wrong)

and it is retired where that is more likely than not, after `LEAST_VOTES` at least.

This rule was chosen among four thresholds of a binomial test, which does not look at similarity,
and five variants of the likelihood ratio above, on the same two sets that docs/worth.md has its
figures of, so these are optimistic. On clinc150 (300 questions) it is not clearly better than a
binomial test. It takes a far larger share of the wrong examples than of the right ones; but as few
are wrong to begin with, more right ones than wrong ones go in absolute numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_VOTES = 3
WRONG = 0.05
LUCK = 0.03
BINS = 4
LEAST_USUAL = 4 * BINS
"""Votes of a namespace below which nothing is known to be usual."""
VOICE = 0.75
"""More than half, so that two voices are enough; less than one, so that one is not."""
LATEST = 1000
"""Votes of the namespace that are looked at."""


@dataclass(frozen=True, slots=True)
class Vote:
    """`similarity` of the example to the question that it was shown for."""

    similarity: float
    right: bool
    voice: str | None = None
    """Whose word the right label was; None: not bounded (`rules_store.policy.voices`)."""


def is_wrong(own: Sequence[Vote], usual: Sequence[Vote], *, bounded: bool = False) -> bool:
    """Whether the label of an example with these votes is more likely wrong than right. `usual`:
    the namespace's latest votes, its own among them. `bounded`: the votes of one voice move the
    odds by `VOICE` of their way from the prior to even at most, so that no voice decides alone."""
    if len(own) < LEAST_VOTES or len(usual) < LEAST_USUAL:
        return False
    ends, shares = _by_similarity(usual)
    prior = math.log(WRONG / (1 - WRONG))
    moves: defaultdict[str | None, float] = defaultdict(float)
    for vote in own:
        share = shares[min(bisect_left(ends, vote.similarity), BINS - 1)]
        moves[vote.voice] += math.log(LUCK / share if vote.right else (1 - LUCK) / (1 - share))
    if bounded:
        most = VOICE * -prior
        moves.update({v: max(-most, min(most, m)) for v, m in moves.items() if v is not None})
    return prior + sum(moves.values()) > 0


def _by_similarity(votes: Sequence[Vote]) -> tuple[list[float], list[float]]:
    """Of each group its largest similarity, and the share of its votes that are right."""
    ordered = sorted(votes, key=lambda vote: vote.similarity)
    ends, shares = [], []
    for group in range(BINS):
        part = ordered[group * len(ordered) // BINS : (group + 1) * len(ordered) // BINS]
        ends.append(part[-1].similarity)
        shares.append((1 + sum(vote.right for vote in part)) / (2 + len(part)))
    return ends, shares
