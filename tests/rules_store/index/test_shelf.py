"""Large shelves: divided into cells, they find what a search of all vectors finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rules_store.index.shelf import Shelf, cosines_between, nearest, within
from rules_store.models.rules import Vector

DIMENSION = 24
TOPICS = 40


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rules_store.index.shelf.CELLS_FROM", 1000)


class Material:
    """Unit vectors around topics, as those of rules are."""

    def __init__(self, count: int, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(TOPICS, DIMENSION))
        raw = centres[rng.integers(TOPICS, size=count)] + rng.normal(size=(count, DIMENSION))
        scaled = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        self.vectors: NDArray[np.float32] = scaled.astype(np.float32)
        self.ids = np.arange(count, dtype=np.int64) * 2

    def best(self, query: Vector, k: int) -> set[int]:
        return set((np.argsort(-(self.vectors @ query))[:k]).tolist())


def test_cells_find_what_a_search_of_everything_finds() -> None:
    made = Material(4000)
    shelf = Shelf(DIMENSION)
    shelf.add(made.ids, made.vectors)
    queries = Material(200, seed=2).vectors
    found = [{seq for seq, _ in nearest(shelf, query, 10)} for query in queries]
    shared = [len(got & made.best(query, 10)) for got, query in zip(found, queries, strict=True)]
    assert sum(shared) / (10 * len(queries)) > 0.95
    # What is found has its exact similarity, best first.
    pairs = nearest(shelf, queries[0], 10)
    exact = [float(made.vectors[seq] @ queries[0]) for seq, _ in pairs]
    assert [cosine for _, cosine in pairs] == pytest.approx(exact, abs=1e-5)
    assert exact == sorted(exact, reverse=True)


@pytest.mark.parametrize("batch", [100, 900, 4000])
def test_however_it_grew_a_shelf_holds_what_was_put_in_and_not_taken_out(batch: int) -> None:
    made = Material(4000)
    shelf = Shelf(DIMENSION)
    for start in range(0, 4000, batch):
        shelf.add(made.ids[start : start + batch], made.vectors[start : start + batch])
    gone = made.ids[::7].tolist()
    shelf.remove([*gone, 1, 10**9])  # two were never there
    left = np.setdiff1d(made.ids, gone)
    held = shelf.arrays()
    order = np.argsort(held.ids)
    np.testing.assert_array_equal(held.ids[order], left)
    np.testing.assert_array_equal(held.vectors[order], made.vectors[left // 2])
    assert len(shelf) == len(left)
    assert shelf.vector(0) is None
    np.testing.assert_array_equal(shelf.vector(2), made.vectors[1])
    np.testing.assert_array_equal(shelf.vectors([4, 2]), made.vectors[[2, 1]])
    # And itself is what is nearest to each of them.
    assert [nearest(shelf, made.vectors[id // 2], 1)[0][0] for id in left[:50]] == [
        id // 2 for id in left[:50]
    ]


def test_all_near_duplicates_are_found() -> None:
    made = Material(2000)
    shelf = Shelf(DIMENSION)
    shelf.add(made.ids, made.vectors)
    twins = np.repeat(made.vectors[:1], 100, axis=0)
    shelf.add(np.arange(100, dtype=np.int64) * 2 + 100_000, twins)
    found = {id for id, _ in within(shelf, made.vectors[0], 0.99)}
    assert found == {0, *range(100_000, 100_200, 2)}


def test_an_emptied_shelf_finds_nothing_and_can_be_filled_again() -> None:
    for count in (10, 1500):
        made = Material(count)
        shelf = Shelf(DIMENSION)
        shelf.add(made.ids, made.vectors)
        shelf.remove(made.ids.tolist())
        assert not shelf
        assert nearest(shelf, made.vectors[0], 5) == []
        assert within(shelf, made.vectors[0], 0.5) == []
        assert (len(shelf.ids()), shelf.arrays().vectors.shape) == (0, (0, DIMENSION))
        shelf.add(made.ids[:1], made.vectors[:1])
        assert nearest(shelf, made.vectors[0], 5)[0][0] == 0


def test_cosines_are_between_each_and_each() -> None:
    vectors = Material(40).vectors
    np.testing.assert_allclose(cosines_between(vectors), vectors @ vectors.T, atol=1e-6)
    assert cosines_between(vectors[:0]).shape == (0, 0)
