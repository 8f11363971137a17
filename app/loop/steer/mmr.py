"""Maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def mmr(
    relevance: Mapping[int, float], cosines: npt.NDArray[np.float32], k: int, weight: float
) -> list[int]:
    """Positions of at most `k` items, the most relevant first, later ones unlike those chosen.

    `relevance`: cosines to the query, by the positions of the items that may be chosen. `cosines`:
    those between all items, shape (n, n). `weight`: lambda in [0, 1] of lambda * relevance -
    (1 - lambda) * max cosine to the chosen. Source: Carbonell and Goldstein, "The use of MMR",
    SIGIR 1998. Ties go to the earlier item.

    In plain Python: of a dozen items, a call of NumPy costs more than the arithmetic.
    """
    left = {item: weight * value for item, value in relevance.items()}
    redundancy: dict[int, float] = {}
    chosen: list[int] = []
    while left and len(chosen) < k:
        best = max(left, key=lambda item: left[item] - (1 - weight) * redundancy.get(item, 0.0))
        chosen.append(best)
        del left[best]
        row = cosines[best].tolist()
        for item in left:
            redundancy[item] = max(redundancy.get(item, row[item]), row[item])
    return chosen
