"""Maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mmr(
    relevance: Sequence[float], vectors: npt.NDArray[np.float32], k: int, weight: float
) -> list[int]:
    """Positions of at most `k` items, the most relevant first, later ones unlike those chosen.

    `relevance`: n cosines to the query. `vectors`: unit vectors of the items, shape (n, d).
    `weight`: lambda in [0, 1] of lambda * relevance - (1 - lambda) * max cosine to the chosen.
    Source: Carbonell and Goldstein, "The use of MMR", SIGIR 1998. Ties go to the earlier item.
    """
    count = len(relevance)
    if count == 0 or k <= 0:
        return []
    scores = np.asarray(relevance, dtype=np.float64)
    redundancy = np.full(count, -np.inf)
    left = np.ones(count, dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, count):
        value = weight * scores
        if chosen:
            value = value - (1 - weight) * redundancy
        best = int(np.argmax(np.where(left, value, -np.inf)))
        chosen.append(best)
        left[best] = False
        redundancy = np.maximum(redundancy, vectors @ vectors[best])
    return chosen
