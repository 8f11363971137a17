"""Examples near a question. A cache of SQL that holds no truth of its own, as `RuleIndex` is.

One `Shelf` per namespace holds its active examples by their sequence numbers. As with rules it
belongs to one thread at a time: built in a worker thread, used on the event loop.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from rules_store.index.shelf import Shelf, cosines_between, within
from rules_store.models.examples import (
    ExampleHit,
    IndexedExample,
)
from rules_store.models.rules import RuleState, Vector
from rules_store.policy.same_question import CONFLICT_COSINE, same_numbers

logger = logging.getLogger(__name__)

_ROUNDING = 1e-6  # of a float32 inner product of unit vectors
_MORE = 16
"""Fetched beyond what is wanted: what is expired, in conflict or outdated gives way to the next."""


class ExampleIndex:
    """Active examples that have a vector, by namespace; as of the event that the rules' index has
    seen."""

    def __init__(self, dimension: int | None = None) -> None:
        self.dimension = dimension
        self._entries: dict[int, IndexedExample] = {}
        """By sequence number, without their vectors."""
        self._seqs: dict[str, int] = {}
        """By id."""
        self._rivals: dict[str, set[str]] = {}
        """Id of an indexed example -> ids that it contradicts, indexed or not."""
        self._tasks: Counter[tuple[str, str | None] | None] = Counter()
        """How many examples there are of each `_task_of`."""
        self._shelves: dict[str, Shelf] = {}

    def __len__(self) -> int:
        return len(self._entries)

    # -- changing

    def put_all(self, rows: Iterable[IndexedExample]) -> None:
        """Makes the index hold these examples as they are now, which may mean not at all; each
        once."""
        gone: list[int] = []
        new: list[IndexedExample] = []
        for row in rows:
            if row.state is not RuleState.ACTIVE or not self._fits(row.vector):
                gone.append(row.seq)
            elif self._holds(row):
                self._remember(row)
            else:
                gone.append(row.seq)
                new.append(row)
        self._drop(gone)
        self.extend(new)

    def extend(self, rows: Iterable[IndexedExample]) -> None:
        """`put_all` for examples that are not in the index."""
        waiting: dict[str, dict[int, Vector]] = {}
        for row in rows:
            if row.state is RuleState.ACTIVE and row.vector is not None and self._fits(row.vector):
                waiting.setdefault(row.namespace, {})[row.seq] = row.vector
                self._remember(row)
        for namespace, vectors in waiting.items():
            stacked = np.ascontiguousarray(np.stack(list(vectors.values())), dtype=np.float32)
            if namespace not in self._shelves:
                self._shelves[namespace] = Shelf(stacked.shape[1])
            self._shelves[namespace].add(np.fromiter(vectors, dtype=np.int64), stacked)

    def remove(self, ids: Iterable[str]) -> None:
        """Drops examples; those that it does not hold are passed over."""
        self._drop([self._seqs[id] for id in ids if id in self._seqs])

    def forget(self, namespace: str) -> None:
        """Drops every example of a namespace."""
        self._shelves.pop(namespace, None)
        for seq in [seq for seq, each in self._entries.items() if each.namespace == namespace]:
            self._forget(seq)

    def _fits(self, vector: Vector | None) -> bool:
        if vector is None:
            return False
        if self.dimension is None:
            self.dimension = len(vector)
        if len(vector) != self.dimension:
            logger.warning("a stored vector has %d dimensions, not %d", len(vector), self.dimension)
        return len(vector) == self.dimension

    def _holds(self, row: IndexedExample) -> bool:
        entry = self._entries.get(row.seq)
        if entry is None or entry.namespace != row.namespace or row.vector is None:
            return False
        return np.array_equal(self._shelves[row.namespace].vectors([row.seq])[0], row.vector)

    def _remember(self, row: IndexedExample) -> None:
        self._forget(row.seq)
        self._entries[row.seq] = replace(row, vector=None)
        self._tasks[_task_of(row)] += 1
        self._seqs[row.id] = row.seq
        for other in row.rivals:
            # Of both, as the other one's row need not change when this one comes.
            self._rivals.setdefault(row.id, set()).add(other)
            self._rivals.setdefault(other, set()).add(row.id)

    def _drop(self, seqs: Iterable[int]) -> None:
        by_namespace: dict[str, list[int]] = {}
        for seq in seqs:
            entry = self._forget(seq)
            if entry is not None:
                by_namespace.setdefault(entry.namespace, []).append(seq)
        for namespace, some in by_namespace.items():
            self._shelves[namespace].remove(some)

    def _forget(self, seq: int) -> IndexedExample | None:
        entry = self._entries.pop(seq, None)
        if entry is not None:
            self._part(entry.id)
            del self._seqs[entry.id]
            self._tasks[_task_of(entry)] -= 1
        return entry

    def _part(self, id: str) -> None:
        """Forgets whom it contradicts."""
        for other in self._rivals.pop(id, ()):
            rivals = self._rivals.get(other)
            if rivals is not None:
                rivals.discard(id)
                if not rivals:
                    del self._rivals[other]

    # -- asking

    def search(
        self,
        namespace: str,
        query: Vector,
        k: int,
        floor: float,
        now: datetime,
        instructions: str | None = None,
    ) -> tuple[ExampleHit, ...]:
        """See `RuleStore.search_examples`; `query` has length 1."""
        shelf = self._shelves.get(namespace)
        if not shelf or k < 1:
            return ()
        task = None if instructions is None else (namespace, instructions)
        if not self._tasks[task]:
            task = None
        wanted = k + _MORE
        while True:
            found = shelf.search(query, wanted)
            exhausted = len(found) < wanted or (task is None and found[-1][1] < floor)
            near_enough = [
                (seq, cosine)
                for seq, cosine in found
                if cosine >= floor - _ROUNDING
                or (task is not None and _task_of(self._entries[seq]) == task)
            ]
            kept = self._recallable(shelf, near_enough, k, now)
            if exhausted or len(kept) == k:
                return tuple(kept)
            wanted *= 4

    def _recallable(
        self,
        shelf: Shelf,
        found: Sequence[tuple[int, float]],
        k: int,
        now: datetime,
    ) -> list[ExampleHit]:
        """The k nearest of what was found that may be shown, one of each question."""
        near = [
            (round(cosine, 6), self._entries[seq])
            for seq, cosine in found
            if self._shown(self._entries[seq], now)
        ]
        near.sort(key=lambda pair: (-pair[0], pair[1].seq))
        if not near:
            return []
        cosines = cosines_between(shelf.vectors([entry.seq for _, entry in near]))
        outdated = _outdated([entry for _, entry in near], cosines)
        chosen = [at for at in range(len(near)) if at not in outdated][:k]
        return [_hit(near[at][1], near[at][0]) for at in chosen]

    def _shown(self, entry: IndexedExample, now: datetime) -> bool:
        """Not expired, and in no conflict with another one that is not."""
        if _expired(entry, now):
            return False
        rivals = self._rivals.get(entry.id)
        if not rivals:
            return True
        seqs = [self._seqs[id] for id in rivals if id in self._seqs]
        return all(_expired(self._entries[seq], now) for seq in seqs)

    def unchanged(
        self, namespace: str, hits: Iterable[ExampleHit], now: datetime
    ) -> list[ExampleHit]:
        """Those that may be shown still, with the same question and answer."""
        found = []
        for hit in hits:
            entry = self._entries.get(self._seqs.get(hit.id, -1))
            if entry is None or entry.namespace != namespace or not self._shown(entry, now):
                continue
            if (entry.question, entry.answer) == (hit.question, hit.answer):
                found.append(hit)
        return found

    def has(self, namespace: str) -> bool:
        """Whether `search` could find anything."""
        return bool(self._shelves.get(namespace))

    def nearest(self, query: Vector, namespace: str | None, k: int) -> list[tuple[int, float]]:
        """(seq, cosine) of the k nearest, in conflict or not; namespace None: of every one."""
        found: list[tuple[int, float]] = []
        for name, shelf in self._shelves.items():
            if namespace in (None, name):
                found += [(seq, round(cosine, 6)) for seq, cosine in shelf.search(query, k)]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]

    def alike(self, namespace: str, query: Vector) -> list[IndexedExample]:
        """Examples of nearly the same question, nearest first."""
        shelf = self._shelves.get(namespace)
        if not shelf:
            return []
        near = within(shelf, query, CONFLICT_COSINE - _ROUNDING)
        return [self._entries[seq] for seq, _ in near]

    def vectors(self, namespace: str, seqs: Sequence[int]) -> Vector:
        """Of examples that are there, shape (n, dimension)."""
        return self._shelves[namespace].vectors(seqs)

    def entries(self) -> dict[int, IndexedExample]:
        """What it holds, by sequence number, without the vectors."""
        return dict(self._entries)


def _outdated(entries: Sequence[IndexedExample], cosines: Vector) -> set[int]:
    """Places of those that a later verified one of nearly the same question takes the place of.
    `cosines`: between their questions, shape (n, n)."""
    alike = np.argwhere(np.triu(cosines >= CONFLICT_COSINE, 1)).tolist()
    same: dict[int, list[int]] = {}
    for one, other in alike:
        if same_numbers(entries[one].question, entries[other].question):
            same.setdefault(one, []).append(other)
            same.setdefault(other, []).append(one)
    outdated: set[int] = set()
    newest_first = sorted(
        same, key=lambda at: (entries[at].verified_at, entries[at].seq), reverse=True
    )
    for at in newest_first:
        if at not in outdated:
            # Those alike that are newer have been looked at: they are outdated themselves.
            outdated.update(same[at])
    return outdated


def _task_of(entry: IndexedExample) -> tuple[str, str | None] | None:
    """Namespace and instructions of an example with a label; None of any other."""
    labelled = entry.instructions is not None and entry.label is not None
    return (entry.namespace, entry.instructions) if labelled else None


def _expired(entry: IndexedExample, now: datetime) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now


def _hit(entry: IndexedExample, similarity: float) -> ExampleHit:
    return ExampleHit(
        entry.id,
        entry.question,
        entry.answer,
        entry.label,
        entry.trust,
        entry.verified_at,
        similarity,
    )
