"""Searching one FAISS index that holds rules by their texts (even ids) and triggers (odd ones)."""

from __future__ import annotations

from typing import Any

from rules_store.types import Vector


def nearest(shelf: Any, query: Vector, k: int) -> list[tuple[int, float]]:
    """(seq, similarity) of the k best rules of a shelf that holds one or two vectors of each."""
    wanted = 2 * k + 2
    while True:
        fetched = min(wanted, shelf.ntotal)
        cosines, ids = shelf.search(query[None, :], fetched)
        best: dict[int, float] = {}
        for id, cosine in zip(ids[0].tolist(), cosines[0].tolist(), strict=True):
            best.setdefault(id // 2, round(cosine, 6))  # FAISS returns the larger one first
        ranked = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
        # Where a tie reaches beyond what was fetched, FAISS's own order would decide.
        if fetched == shelf.ntotal or ranked[-1][1] > round(float(cosines[0][-1]), 6):
            return ranked
        wanted *= 4


def nearest_texts(shelf: Any, query: Vector, k: int) -> list[tuple[int, float]]:
    """As `nearest`, by the vectors of texts alone."""
    wanted = 2 * k + 2
    while True:
        fetched = min(wanted, shelf.ntotal)
        cosines, ids = shelf.search(query[None, :], fetched)
        pairs = zip(ids[0].tolist(), cosines[0].tolist(), strict=True)
        texts = [(id // 2, round(cosine, 6)) for id, cosine in pairs if id % 2 == 0]
        if fetched == shelf.ntotal or len(texts) >= k:
            return texts[:k]
        wanted *= 4


def within(shelf: Any, query: Vector, threshold: float) -> list[tuple[int, float]]:
    """(id, cosine) of every vector of a shelf that is at least that near.

    FAISS's range_search would do, but it starts a team of OpenMP threads for each call, which
    costs milliseconds on a busy machine.
    """
    wanted = 16
    while True:
        fetched = min(wanted, shelf.ntotal)
        cosines, ids = shelf.search(query[None, :], fetched)
        if fetched == shelf.ntotal or cosines[0][-1] < threshold:
            near = cosines[0] >= threshold
            return list(zip(ids[0][near].tolist(), cosines[0][near].tolist(), strict=True))
        wanted *= 4
