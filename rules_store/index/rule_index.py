"""The FAISS side: which rules are near a vector. A cache of SQL that holds no truth of its own.

One `Shelf` per (namespace, polarity, state) for active and candidate rules. A rule with sequence
number s is there as id 2s (its text) and, where it has a trigger, as 2s + 1.

FAISS is not thread-safe: one index object belongs to one thread at a time. The store builds a new
one in a worker thread, and from then on reads and changes it on the event loop only.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rules_store.errors import InvalidVector
from rules_store.index.shelf import Arrays, Shelf, cosines_between, nearest, nearest_texts, within
from rules_store.models.rules import (
    INDEXED_STATES,
    NO_RESULT,
    IndexRow,
    Polarity,
    RuleHit,
    RuleState,
    SearchResult,
    ShelfKey,
    Vector,
)

logger = logging.getLogger(__name__)

_Search = tuple[str, Polarity, int, bool, bytes]
_REMEMBERED = 1024
"""Searches; some 5 KB each."""
_ROUNDING = 1e-6  # of a float32 inner product of unit vectors


@dataclass(frozen=True, slots=True)
class Entry:
    """What memory holds of an indexed rule beside its vectors."""

    id: str
    key: ShelfKey
    text: str
    trigger: str


def unit(vector: Vector, dimension: int | None) -> Vector:
    """`vector` as float32 of length 1. Raises InvalidVector."""
    if _is_unit(vector, dimension):
        return vector
    try:
        # In float64, where the squares of large float32 values do not overflow.
        values = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidVector("An embedding must be a sequence of numbers.") from error
    if values.ndim != 1 or (dimension is not None and len(values) != dimension):
        expected = "(n,)" if dimension is None else f"({dimension},)"
        raise InvalidVector(f"An embedding has shape {values.shape}, not {expected}.")
    if not np.isfinite(values).all():
        raise InvalidVector("An embedding has values that are not finite numbers.")
    length = np.linalg.norm(values)
    if length == 0.0:
        raise InvalidVector("An embedding is zero, so it has no direction.")
    return (values / length).astype(np.float32)


def _is_unit(vector: object, dimension: int | None) -> bool:
    """As an embedder gives them; nothing of such a length is infinite or no number."""
    if not (isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.ndim == 1):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(vector @ vector)
    return len(vector) == (dimension or len(vector)) and abs(square - 1.0) < _ROUNDING


class RuleIndex:
    """Rules by (namespace, polarity), as of event number `last_event`."""

    def __init__(self, dimension: int | None = None) -> None:
        self.dimension = dimension
        self.last_event = 0
        self._entries: dict[int, Entry] = {}
        self._shelves: dict[ShelfKey, Shelf] = {}
        self._searched: OrderedDict[_Search, SearchResult] = OrderedDict()
        """What the last searches found; of an index that has not changed since."""

    def __len__(self) -> int:
        return len(self._entries)

    # -- changing

    def put(self, row: IndexRow) -> None:
        """Makes the index hold this rule as it is now, which may mean not at all."""
        self.put_all([row])

    def put_all(self, rows: Iterable[IndexRow]) -> None:
        """`put` for many rules, each once. FAISS moves a whole shelf for one removal, so a shelf
        is removed from once and added to once."""
        gone: list[int] = []
        new: list[IndexRow] = []
        for row in rows:
            if row.state not in INDEXED_STATES or not self._fits(row.text_vector):
                gone.append(row.seq)
            elif self._holds(row, self._vectors(row)):
                self._entries[row.seq] = Entry(row.id, row.key, row.text, row.trigger)
            else:
                gone.append(row.seq)
                new.append(row)
        self._drop(gone)
        self.extend(new)

    def forget(self, namespace: str) -> None:
        """Drops every rule of a namespace."""
        self._searched.clear()
        for key in [key for key in self._shelves if key[0] == namespace]:
            del self._shelves[key]
        for seq in [seq for seq, entry in self._entries.items() if entry.key[0] == namespace]:
            del self._entries[seq]

    def extend(self, rows: Iterable[IndexRow]) -> None:
        """`put` for many rules that are not in the index, in one FAISS call per shelf."""
        self._searched.clear()
        waiting: dict[ShelfKey, dict[int, Vector]] = {}
        for row in rows:
            if row.state in INDEXED_STATES and self._fits(row.text_vector):
                waiting.setdefault(row.key, {}).update(self._vectors(row))
                self._entries[row.seq] = Entry(row.id, row.key, row.text, row.trigger)
        for key, vectors in waiting.items():
            self._add(key, vectors)

    def _fits(self, vector: Vector | None) -> bool:
        if vector is None:
            return False
        if self.dimension is None:
            self.dimension = len(vector)
        if len(vector) != self.dimension:
            logger.warning("a stored vector has %d dimensions, not %d", len(vector), self.dimension)
        return len(vector) == self.dimension

    def _vectors(self, row: IndexRow) -> dict[int, Vector]:
        assert row.text_vector is not None
        vectors = {2 * row.seq: row.text_vector}
        if row.trigger_vector is not None and self._fits(row.trigger_vector):
            vectors[2 * row.seq + 1] = row.trigger_vector
        return vectors

    def _holds(self, row: IndexRow, vectors: dict[int, Vector]) -> bool:
        entry = self._entries.get(row.seq)
        if entry is None or entry.key != row.key:
            return False
        shelf = self._shelves[row.key]
        return all(
            _equal(shelf.vector(id), vectors.get(id)) for id in (2 * row.seq, 2 * row.seq + 1)
        )

    def _add(self, key: ShelfKey, vectors: dict[int, Vector]) -> None:
        rows = np.ascontiguousarray(np.stack(list(vectors.values())), dtype=np.float32)
        if key not in self._shelves:
            self._shelves[key] = Shelf(rows.shape[1])
        self._shelves[key].add(np.fromiter(vectors, dtype=np.int64), rows)

    def _drop(self, seqs: Iterable[int]) -> None:
        ids: dict[ShelfKey, list[int]] = {}
        for seq in seqs:
            entry = self._entries.pop(seq, None)
            if entry is not None:
                ids.setdefault(entry.key, []).extend((2 * seq, 2 * seq + 1))
        for key, some in ids.items():
            self._shelves[key].remove(some)

    # -- asking

    def search(
        self, namespace: str, query: Vector, polarity: Polarity, k: int, *, triggers: bool = True
    ) -> SearchResult:
        """See `RuleStore.search`; `query` has length 1. Equally similar rules: older first."""
        shelf = self._shelves.get((namespace, polarity, RuleState.ACTIVE))
        if not shelf or k < 1:
            return NO_RESULT
        asked = (namespace, polarity, k, triggers, query.tobytes())
        known = self._searched.get(asked)
        if known is not None:
            self._searched.move_to_end(asked)
            return known
        found = nearest(shelf, query, k) if triggers else nearest_texts(shelf, query, k)
        texts = shelf.vectors([2 * seq for seq, _ in found])
        near = SearchResult(tuple(self._hit(*each) for each in found), cosines_between(texts))
        self._searched[asked] = near
        if len(self._searched) > _REMEMBERED:
            self._searched.popitem(last=False)
        return near

    def nearest(
        self,
        query: Vector,
        namespace: str | None,
        polarities: Sequence[Polarity],
        states: Sequence[RuleState],
        k: int,
    ) -> list[tuple[int, float]]:
        """(seq, similarity) of the k best rules of these shelves; None: of every namespace."""
        found: list[tuple[int, float]] = []
        for key, shelf in self._shelves.items():
            fits = namespace in (None, key[0]) and key[1] in polarities and key[2] in states
            if fits and shelf:
                found += nearest(shelf, query, k)
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]

    def unchanged(self, namespace: str, hits: Iterable[RuleHit]) -> list[RuleHit]:
        """Those that are active still, with the same text."""
        wanted = {hit.id: hit for hit in hits}
        if not wanted:
            return []
        texts = {
            entry.id: entry.text
            for entry in self._entries.values()
            if entry.id in wanted and (entry.key[0], entry.key[2]) == (namespace, RuleState.ACTIVE)
        }
        return [hit for hit in wanted.values() if texts.get(hit.id) == hit.text]

    def has_active(self, namespace: str) -> bool:
        shelves = (self._shelves.get((namespace, each, RuleState.ACTIVE)) for each in Polarity)
        return any(shelves)

    def count(self, namespace: str, state: RuleState) -> int:
        """Rules of a namespace in one of `INDEXED_STATES`."""
        shelves = [self._shelves.get((namespace, each, state)) for each in Polarity]
        return sum(int(np.count_nonzero(each.ids() % 2 == 0)) for each in shelves if each)

    def _hit(self, seq: int, similarity: float) -> RuleHit:
        entry = self._entries[seq]
        return RuleHit(entry.id, entry.key[1], entry.text, entry.trigger, similarity)

    def duplicates(
        self, namespace: str, polarity: Polarity, query: Vector, threshold: float
    ) -> list[tuple[float, int]]:
        """(cosine, seq) of the active and candidate rules whose *text* is that near, best first."""
        found: list[tuple[float, int]] = []
        for state in INDEXED_STATES:
            shelf = self._shelves.get((namespace, polarity, state))
            if not shelf:
                continue
            found += [
                (cosine, id // 2)
                for id, cosine in within(shelf, query, threshold - _ROUNDING)
                if id % 2 == 0
            ]
        return sorted(found, key=lambda pair: (-pair[0], pair[1]))

    def active_texts(self, namespace: str, polarity: Polarity) -> tuple[list[int], Vector]:
        """Sequence numbers and text vectors (n, dimension) of the active rules, as copies."""
        shelf = self.shelf((namespace, polarity, RuleState.ACTIVE))
        texts = shelf.ids % 2 == 0
        return (shelf.ids[texts] // 2).tolist(), shelf.vectors[texts]

    # -- as arrays, for a snapshot

    def entries(self) -> dict[int, Entry]:
        return dict(self._entries)

    def shelf_keys(self) -> list[ShelfKey]:
        return [key for key, shelf in self._shelves.items() if shelf]

    def shelf(self, key: ShelfKey) -> Arrays:
        """A copy of one shelf; empty where there is none."""
        shelf = self._shelves.get(key)
        return (Shelf(self.dimension or 1) if shelf is None else shelf).arrays()

    @classmethod
    def restore(
        cls,
        dimension: int | None,
        last_event: int,
        entries: dict[int, Entry],
        shelves: dict[ShelfKey, Arrays],
    ) -> RuleIndex:
        """The index that `entries` and `shelf` described."""
        index = cls(dimension)
        index.last_event = last_event
        index._entries = entries
        for key, shelf in shelves.items():
            index._shelves[key] = Shelf(shelf.vectors.shape[1])
            index._shelves[key].add(shelf.ids, shelf.vectors)
        return index


def _equal(left: Vector | None, right: Vector | None) -> bool:
    if left is None or right is None:
        return left is right
    return bool(np.array_equal(left, right))
