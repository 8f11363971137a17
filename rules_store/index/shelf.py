"""Vectors of one shelf in FAISS: rules by their texts (even ids) and triggers (odd ones).

A small shelf is searched whole. From `CELLS_FROM` vectors on it is divided into cells by k-means,
and a search looks into the `PROBED` cells nearest to the query (an inverted file: Sivic and
Zisserman, "Video Google", ICCV 2003); what it finds has its exact similarity, but a rule far from
the middle of its cell may be missed. `benchmarks.serving.retrieval` measures how many are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rules_store.models.rules import Vector

CELLS_FROM = 5_000
PROBED = 32
_SAMPLE = 40
"""Vectors a cell that k-means is trained on, the fewest that FAISS does not warn of."""
_ROUNDS = 6
_OUTGROWN = 4
"""Cells are made anew when there are so many times the vectors that they were made for."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Vectors of one shelf: `ids` (n,) int64 and `vectors` (n, dimension) float32."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]


class Shelf:
    """Belongs to one thread at a time, as FAISS is not thread-safe."""

    def __init__(self, dimension: int) -> None:
        # One query is searched faster by one thread than a team of threads is woken.
        faiss.omp_set_num_threads(1)
        self._dimension = dimension
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._cells = 0
        self._limit = CELLS_FROM
        """Vectors from which on cells are made, or made anew."""

    def __len__(self) -> int:
        size: int = self._index.ntotal
        return size

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """`vectors`: unit vectors, shape (n, dimension), of ids that are not there."""
        if len(self) + len(ids) >= self._limit:
            there = self.arrays()
            self._divide(np.concatenate([there.ids, ids]), np.concatenate([there.vectors, vectors]))
        else:
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def remove(self, ids: Sequence[int]) -> None:
        """Those of the ids that are there."""
        gone = np.array(ids, dtype=np.int64)
        if self._cells:
            self._index.remove_ids(faiss.IDSelectorArray(len(gone), faiss.swig_ptr(gone)))
        else:
            self._index.remove_ids(gone)

    def vector(self, id: int) -> Vector | None:
        try:
            vector: Vector = self._index.reconstruct(id)
        except RuntimeError:  # FAISS's way to say that it has no such id
            return None
        return vector

    def vectors(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Of ids that are there, shape (n, dimension)."""
        found: NDArray[np.float32] = self._index.reconstruct_batch(np.array(ids, dtype=np.int64))
        return found

    def search(self, query: Vector, k: int) -> list[tuple[int, float]]:
        """(id, cosine) of the k nearest vectors, the nearest first; fewer where there are no more,
        or none within the cells that were looked into."""
        if not len(self):
            return []
        cosines, ids = self._index.search(query[None, :], min(k, len(self)))
        found = list(zip(ids[0].tolist(), cosines[0].tolist(), strict=True))
        # FAISS fills up with ids below 0, at the end.
        return found if found[-1][0] >= 0 else [pair for pair in found if pair[0] >= 0]

    def ids(self) -> NDArray[np.int64]:
        """A copy, in the order of `arrays`."""
        if not self._cells:
            all_ids: NDArray[np.int64] = faiss.vector_to_array(self._index.id_map)
            return all_ids
        lists = self._index.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)).copy()
            for cell in self._filled()
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def arrays(self) -> Arrays:
        """A copy."""
        if not self._cells:
            flat: Any = faiss.downcast_index(self._index.index)
            parts = [faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).copy()]
        else:
            lists = self._index.invlists
            parts = [
                faiss.rev_swig_ptr(lists.get_codes(cell), lists.list_size(cell) * lists.code_size)
                .copy()
                .view(np.float32)
                for cell in self._filled()
            ]
        vectors = np.concatenate([np.zeros(0, dtype=np.float32), *parts])
        return Arrays(self.ids(), vectors.reshape(-1, self._dimension))

    def _filled(self) -> list[int]:
        sizes = ((cell, self._index.invlists.list_size(cell)) for cell in range(self._cells))
        return [cell for cell, size in sizes if size]

    def _divide(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Into as many cells as each has vectors, which leaves the fewest of both to look at."""
        self._cells = math.isqrt(len(ids))
        self._limit = _OUTGROWN * len(ids)
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self._dimension),
            self._dimension,
            self._cells,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.nprobe = PROBED
        index.cp.niter = _ROUNDS
        index.cp.spherical = True
        order = np.argsort(ids)  # the same vectors make the same cells, whatever their history
        sample = order[:: max(1, len(ids) // (_SAMPLE * self._cells))]
        index.train(np.ascontiguousarray(vectors[sample], dtype=np.float32))
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
        index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
        self._index = index


def nearest(shelf: Shelf, query: Vector, k: int) -> list[tuple[int, float]]:
    """(seq, similarity) of the k best rules of a shelf that holds one or two vectors of each."""
    wanted = 2 * k + 2
    while True:
        found = shelf.search(query, wanted)
        best: dict[int, float] = {}
        for id, cosine in found:
            best.setdefault(id // 2, round(cosine, 6))  # FAISS returns the larger one first
        ranked = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
        # Where a tie reaches beyond what was fetched, FAISS's own order would decide.
        if len(found) < wanted or ranked[-1][1] > round(found[-1][1], 6):
            return ranked
        wanted *= 4


def nearest_texts(shelf: Shelf, query: Vector, k: int) -> list[tuple[int, float]]:
    """As `nearest`, by the vectors of texts alone."""
    wanted = 2 * k + 2
    while True:
        found = shelf.search(query, wanted)
        texts = [(id // 2, round(cosine, 6)) for id, cosine in found if id % 2 == 0]
        if len(found) < wanted or len(texts) >= k:
            return texts[:k]
        wanted *= 4


def within(shelf: Shelf, query: Vector, threshold: float) -> list[tuple[int, float]]:
    """(id, cosine) of every vector of a shelf that is at least that near.

    FAISS's range_search would do, but it starts a team of OpenMP threads for each call, which
    costs milliseconds on a busy machine.
    """
    wanted = 16
    while True:
        found = shelf.search(query, wanted)
        if len(found) < wanted or found[-1][1] < threshold:
            return [pair for pair in found if pair[1] >= threshold]
        wanted *= 4


def cosines_between(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each of some unit vectors, shape (n, dimension), with each: shape (n, n).

    Not by a product of matrices: from some thirty vectors on that is shared with other threads,
    which costs milliseconds on a busy machine where they are waited for.
    """
    cosines: NDArray[np.float32] = np.einsum("ik,jk->ij", vectors, vectors)
    return cosines
