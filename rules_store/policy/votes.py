"""When an example has to go because of its own label.

An example that was shown for a question whose right label is known has *voted*: right where its
own label is that label. Examples are recalled by likeness, so a right label votes right as often as
is usual in the namespace, and a wrong one (mislabelled, or out of its place) hardly ever. It is
retired where so few right votes are too unlikely for one as good as the others: the lower tail of
the binomial distribution with the namespace's usual share,

    P(X <= right),  X ~ Binomial(right + wrong, usual)

at most `ERROR`, and never before `LEAST_VOTES`. The usual share is a posterior mean (Beta(1, 1)),
so that a namespace with few votes retires nothing.
"""

from __future__ import annotations

import math

LEAST_VOTES = 3
ERROR = 0.05
"""Chance that an example which is as good as the others is found wrong by one look."""
LATEST = 1000
"""Votes of the namespace that its usual share is taken of."""


def lower_tail(right: int, votes: int, share: float) -> float:
    """P(X <= right) for X ~ Binomial(votes, share)."""
    return math.fsum(
        math.comb(votes, k) * share**k * (1.0 - share) ** (votes - k) for k in range(right + 1)
    )


def is_wrong(right: int, wrong: int, usual: tuple[int, int]) -> bool:
    """`right`, `wrong`: votes of the example; `usual`: of the whole namespace, its own included."""
    votes = right + wrong
    if votes < LEAST_VOTES:
        return False
    share = (1 + usual[0]) / (2 + sum(usual))
    return lower_tail(right, votes, share) <= ERROR
