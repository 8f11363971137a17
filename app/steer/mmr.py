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
    left = weight * np.asarray(relevance, dtype=np.float64)
    chosen = [int(np.argmax(left))]
    redundancy = np.full(count, -np.inf)
    while len(chosen) < min(k, count):
        left[chosen[-1]] = -np.inf
        np.maximum(redundancy, vectors @ vectors[chosen[-1]], out=redundancy)
        chosen.append(int(np.argmax(left - (1 - weight) * redundancy)))
    return chosen
