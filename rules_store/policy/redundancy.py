"""Which active rules give way when a namespace is over its capacity. Pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 512  # rows of the similarity matrix that are in memory at once


def oldest(seqs: list[int], count: int) -> list[int]:
    """The `count` smallest sequence numbers."""
    return sorted(seqs)[:count]


def most_redundant(
    vectors: NDArray[np.float32],
    groups: NDArray[np.int64],
    seqs: list[int],
    frequencies: list[float],
    count: int,
) -> list[int]:
    """Sequence numbers to retire: `count` times, of the most similar pair the rule that was
    learned less often, or the older one of two equals. A pair is of one group.

    `vectors` is (n, dimension), rows of length 1; the other arguments go with its rows.
    Fewer than `count` come back when no pair is left.
    """
    if not seqs:
        return []
    similarity, partner = _nearest_neighbours(vectors, groups)
    alive = np.ones(len(seqs), dtype=bool)
    victims: list[int] = []
    while len(victims) < count:
        first = int(np.argmax(similarity))
        if similarity[first] == -np.inf:
            break
        second = int(partner[first])
        victim = min(first, second, key=lambda row: (frequencies[row], seqs[row]))
        victims.append(seqs[victim])
        alive[victim] = False
        similarity[victim] = -np.inf
        for row in np.flatnonzero(alive & (partner == victim)):
            comparable = alive & (groups == groups[row])
            again = np.where(comparable, vectors @ vectors[row], -np.inf)
            again[row] = -np.inf
            partner[row] = int(np.argmax(again))
            similarity[row] = again[partner[row]]
    return victims


def _nearest_neighbours(
    vectors: NDArray[np.float32], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each row, the cosine of the nearest other row of its group (-inf: none), its number."""
    count = len(vectors)
    similarity = np.full(count, -np.inf)
    partner = np.zeros(count, dtype=np.int64)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        block = vectors[rows] @ vectors.T
        block[groups[rows][:, None] != groups[None, :]] = -np.inf
        block[rows - start, rows] = -np.inf
        partner[rows] = block.argmax(axis=1)
        similarity[rows] = block[rows - start, partner[rows]]
    return similarity, partner
