"""Examples: read, and changed by an operator or by what an episode turned out to be. Each change
writes one event, in its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import (
    DuplicateExample,
    InvalidTransition,
    UnknownExample,
    UnknownNamespace,
    VersionConflict,
)
from rules_store.index.rule_index import unit
from rules_store.models import paging
from rules_store.models.events import Change, EventFilter
from rules_store.models.examples import (
    EVERY_EXAMPLE,
    Conflict,
    Example,
    ExampleEmbedding,
    ExampleFilter,
    NewExample,
    SimilarExample,
)
from rules_store.models.paging import Page
from rules_store.models.rules import RuleSort, RuleState, Vector
from rules_store.operations import example_curation, example_exchange, example_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.curation import PruneOrder, both_reasons
from rules_store.operations.example_curation import ExamplePrunePlan
from rules_store.operations.example_exchange import ExportedExample, IncomingExample
from rules_store.operations.example_writes import Retirement
from rules_store.operations.exchange import ImportResult
from rules_store.operations.rule_writes import tidy
from rules_store.repository import events, examples
from rules_store.repository.orders import place_length

_MOST_RESTING = 20_000
"""Vectors of examples outside the index that one search reads from SQL."""


CLEARED_AFTER = timedelta(days=1)
"""How long after its time an expired example is retired, so that its time can still be moved."""
DELETED = "examples.deleted"
"""Learned from clients, and older than their words may be kept."""
_AT_ONCE = 500


class _Unchanged:
    """That an argument was not given, where None says something."""


UNCHANGED = _Unchanged()


class ExampleOperations:
    """`store.examples`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def get(self, example_id: str) -> Example:
        """Raises UnknownExample."""
        await self._context.exposures.count()
        async with self._context.database.read() as connection:
            return (await find(connection, example_id))[1]

    async def history(self, example_id: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """Events of the example, newest first. Raises UnknownExample, InvalidCursor."""
        before = paging.decode("example-history", cursor)
        where = EventFilter(example_id=example_id)
        async with self._context.database.read() as connection:
            await find(connection, example_id)
            found, total = await events.page(connection, where, limit + 1, before)
        shown = [(event.id, event) for event in found]
        return paging.page("example-history", shown, total, limit)

    async def nearest(
        self,
        vector: Vector,
        *,
        namespace: str | None = None,
        states: Sequence[RuleState] = (RuleState.ACTIVE,),
        limit: int = 50,
    ) -> list[SimilarExample]:
        """The examples whose questions are nearest to a vector, most similar first, in conflict
        or expired ones too. Active ones come from the index; of the others the newest 20,000
        vectors are looked through. Raises InvalidVector."""
        await self._context.exposures.count()
        query = unit(vector, self._context.caches.dimension)
        best: list[tuple[int, float]] = []
        if RuleState.ACTIVE in states:
            best = self._context.caches.examples.nearest(query, namespace, limit)
        resting = [state for state in states if state is not RuleState.ACTIVE]
        async with self._context.database.read() as connection:
            if resting:
                stored = await examples.resting(
                    connection,
                    self._context.embedding_model,
                    namespace,
                    resting,
                    len(query),
                    _MOST_RESTING,
                )
                best += await asyncio.to_thread(_cosines, stored, query)
            best.sort(key=lambda pair: (-pair[1], pair[0]))
            # An example may have changed its state since the index looked.
            found = await examples.by_seqs(connection, [seq for seq, _ in best[: 4 * limit]])
        similar = [
            SimilarExample(found[seq], cosine)
            for seq, cosine in best
            if seq in found and found[seq].state in states
        ]
        return similar[:limit]

    async def conflicts(
        self,
        namespace: str | None = None,
        *,
        within: Collection[str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """`Conflict`s that are not settled, of one namespace or of those `within` (None: of all),
        the newest first; `one` is the later example of the two. Raises InvalidCursor."""
        before = paging.decode("conflicts", cursor)
        model, now = self._context.embedding_model, self._context.clock()
        among = within if namespace is None else (namespace,)
        async with self._context.database.read() as connection:
            pairs, total = await examples.conflicts(connection, among, now, limit + 1, before)
            ids = list({id for _, *both in pairs for id in both})
            found = await examples.by_ids(connection, ids)
            vectors = await examples.vectors_of(connection, model, ids)
        shown = [
            (seq, Conflict(found[one], found[other], _similarity(vectors, one, other)))
            for seq, one, other in pairs
        ]
        return paging.page("conflicts", shown, total, limit)

    # -- changing

    async def create(self, new: NewExample, vector: Vector | None, *, change: Change) -> Example:
        """See `example_writes.keep`. Raises UnknownNamespace, NamespaceFrozen, InvalidVector;
        ValueError for an empty question or answer."""
        async with self._context.change() as connection:
            if self._context.namespaces.get(new.namespace) is None:
                raise UnknownNamespace(new.namespace)
            self._context.namespaces.check_writable(new.namespace)
            return await example_writes.keep(self._context, connection, new, vector, change)

    async def patch(
        self,
        example_id: str,
        *,
        question: str | None = None,
        answer: str | None = None,
        label: str | _Unchanged | None = UNCHANGED,
        domain: str | None = None,
        expires_at: datetime | _Unchanged | None = UNCHANGED,
        vector: Vector | None = None,
        expected_version: int | None = None,
        change: Change,
    ) -> Example:
        """Changes what is given. `vector`: of the changed question; a changed question without
        one leaves recall until `add_embeddings` brings it.

        Raises UnknownExample, VersionConflict, DuplicateExample, InvalidVector, NamespaceFrozen;
        ValueError for an empty question or answer.
        """
        async with self._context.change() as connection:
            seq, before = await find(connection, example_id, expected_version)
            self._context.namespaces.check_writable(before.namespace)
            after = replace(
                before,
                question=before.question if question is None else tidy(question),
                answer=before.answer if answer is None else tidy(answer),
                domain=before.domain if domain is None else storable(domain),
                version=before.version + 1,
                updated_at=self._context.clock(),
            )
            if not isinstance(label, _Unchanged):
                after = replace(after, label=example_writes.tidy_label(label))
            if not isinstance(expires_at, _Unchanged):
                after = replace(after, expires_at=expires_at)
            example_writes.check_texts(after.question, after.answer)
            await _check_unique(connection, after)
            if after.question != before.question:
                own = example_writes.checked_vector(self._context, vector)
                await examples.set_vectors(connection, self._context.embedding_model, {seq: own})
            await example_writes.update(
                self._context, connection, before, after, "example.patched", change
            )
        return after

    async def restore(
        self, example_id: str, *, change: Change, expected_version: int | None = None
    ) -> Example:
        """Makes a retired or quarantined example active again. Raises UnknownExample,
        VersionConflict, InvalidTransition, DuplicateExample, NamespaceFrozen."""
        gone = (RuleState.RETIRED, RuleState.QUARANTINED)
        return await self._move(
            example_id, gone, RuleState.ACTIVE, "example.restored", change, expected_version
        )

    async def release(
        self, example_id: str, *, change: Change, expected_version: int | None = None
    ) -> Example:
        """Makes a quarantined example active. Raises as `restore` does."""
        return await self._move(
            example_id,
            (RuleState.QUARANTINED,),
            RuleState.ACTIVE,
            "example.released",
            change,
            expected_version,
        )

    async def quarantine(
        self, example_id: str, *, change: Change, expected_version: int | None = None
    ) -> Example:
        """Raises as `restore` does."""
        others = [state for state in RuleState if state is not RuleState.QUARANTINED]
        return await self._move(
            example_id,
            others,
            RuleState.QUARANTINED,
            "example.quarantined",
            change,
            expected_version,
        )

    async def _move(
        self,
        example_id: str,
        movable: Sequence[RuleState],
        state: RuleState,
        kind: str,
        change: Change,
        expected_version: int | None,
    ) -> Example:
        async with self._context.change() as connection:
            _, before = await find(connection, example_id, expected_version)
            self._check_movable(before, movable, kind)
            await _check_unique(connection, before)
            after = example_writes.moved(before, state, change.reason, self._context.clock())
            await example_writes.update(self._context, connection, before, after, kind, change)
        return after

    async def retire(
        self, example_id: str, *, change: Change, expected_version: int | None = None
    ) -> Example:
        """Raises UnknownExample, VersionConflict, InvalidTransition, NamespaceFrozen."""
        async with self._context.change() as connection:
            _, before = await find(connection, example_id, expected_version)
            movable = [state for state in RuleState if state is not RuleState.RETIRED]
            self._check_movable(before, movable, example_writes.RETIRED)
            gone = [Retirement(before, change.reason, change)]
            (after,) = await example_writes.retire(connection, gone, self._context.clock())
        return after

    async def retire_of_episode(self, episode_id: str, *, change: Change) -> list[Example]:
        """All that came of an episode and are not retired yet; as they are then. Raises
        NamespaceFrozen."""
        async with self._context.change() as connection:
            return await example_writes.retire_of_episode(
                self._context, connection, episode_id, change
            )

    def _check_movable(self, example: Example, movable: Sequence[RuleState], kind: str) -> None:
        """Raises InvalidTransition, NamespaceFrozen."""
        self._context.namespaces.check_writable(example.namespace)
        if example.state not in movable:
            wanted = kind.removeprefix("example.")
            raise InvalidTransition(
                f"Example {example.id!r} is {example.state}; it can't be {wanted}."
            )

    # -- conflicts

    async def rivals(self, example_id: str) -> list[Example]:
        """Active, unexpired examples that contradict it, whatever its own state; oldest first.
        Raises UnknownExample."""
        async with self._context.database.read() as connection:
            await find(connection, example_id)
            return await examples.rivals(connection, example_id, self._context.clock())

    async def settle(
        self, example_id: str, *, change: Change, expected_version: int | None = None
    ) -> list[Example]:
        """Retires those that contradict an active example; as they are then. Raises
        UnknownExample, VersionConflict, NamespaceFrozen; InvalidTransition where it is not active
        or nothing contradicts it."""
        async with self._context.change() as connection:
            _, kept = await find(connection, example_id, expected_version)
            self._check_movable(kept, (RuleState.ACTIVE,), "example.settled")
            now = self._context.clock()
            rivals = await examples.rivals(connection, example_id, now)
            if not rivals:
                raise InvalidTransition(f"Nothing contradicts example {example_id!r}.")
            why = f"{example_id} is right"
            gone = [Retirement(each, why, both_reasons(change, why)) for each in rivals]
            return await example_writes.retire(connection, gone, now)

    # -- many at once

    async def plan_prune(self, order: PruneOrder) -> ExamplePrunePlan:
        """What `prune` would retire now; changes nothing. Raises UnknownNamespace; ValueError for
        the policy `similarity`."""
        return await example_curation.plan(self._context, order)

    async def prune(
        self, order: PruneOrder, *, token: str | None = None, change: Change
    ) -> ExamplePrunePlan:
        """Retires examples, an event each. With the `token` of a plan: the examples of that plan,
        or none.

        Raises PreviewOutdated where the examples have changed since, UnknownNamespace,
        NamespaceFrozen; ValueError for the policy `similarity`.
        """
        return await example_curation.prune(self._context, order, token, change)

    def export(
        self, where: ExampleFilter = EVERY_EXAMPLE, *, vectors: bool = False
    ) -> AsyncIterator[Sequence[ExportedExample]]:
        """All examples in batches, oldest first. No transaction is open between two batches."""
        return example_exchange.export(self._context, where, vectors=vectors)

    async def known_texts(self, items: Sequence[Example]) -> Sequence[str | None]:
        """For each, the id of the one in its namespace that has its question and answer."""
        return await example_exchange.known_texts(self._context, items)

    async def import_(self, items: Sequence[IncomingExample], *, change: Change) -> ImportResult:
        """Writes those whose question and answer are new to their namespace, in one transaction;
        an event each, and conflicts are looked for. All are of one namespace.

        Raises UnknownNamespace, NamespaceFrozen, InvalidVector; ValueError for an empty question
        or answer.
        """
        return await example_exchange.import_all(self._context, items, change)

    # -- time

    async def expire(self, now: datetime | None = None) -> int:
        """Retires active examples whose time was over a day ago or longer; how many. Nobody has
        recalled them since, so this only clears them away. Frozen namespaces keep theirs. `now`:
        where it is earlier than the clock says."""
        clock = self._context.clock()
        before = (clock if now is None else min(now, clock)) - CLEARED_AFTER
        total = 0
        while gone := await self._clear(before):
            total += gone
        return total

    async def _clear(self, before: datetime) -> int:
        """Retires some hundreds."""
        writable = [each.name for each in self._context.namespaces.all() if not each.frozen]
        async with self._context.database.read() as connection:
            if not await examples.expired(connection, before, 1, writable):
                return 0
        async with self._context.change() as connection:
            writable = [each.name for each in self._context.namespaces.all() if not each.frozen]
            old = await examples.expired(connection, before, _AT_ONCE, writable)
            change = Change(events.POLICY, "expired")
            gone = [Retirement(each, "expired", change) for each in old]
            await example_writes.retire(connection, gone, self._context.clock())
        return len(old)

    async def delete_old(self, now: datetime | None = None) -> int:
        """Deletes examples that came of an episode and were last verified longer ago than their
        namespace keeps what clients say, whatever their state, and takes their words out of the
        events about them; how many. What names no episode stays: an operator wrote it. Each
        transaction of some hundreds writes an event. `now`: where it is earlier than the clock
        says."""
        clock = self._context.clock()
        now = clock if now is None else min(now, clock)
        total = 0
        for namespace in self._context.namespaces.all():
            days = namespace.settings.retention_days
            while days is not None:
                gone = await self._delete_old(namespace.name, days, now)
                total += gone
                if gone < _AT_ONCE:
                    break
        return total

    async def _delete_old(self, namespace: str, days: int, now: datetime) -> int:
        """Deletes some hundreds."""
        before = now - timedelta(days=days)
        async with self._context.change() as connection:
            old = await examples.learned_before(connection, namespace, before, _AT_ONCE)
            if old:
                await examples.remove(connection, old)
                await events.forget_examples(connection, old)
                await events.append(
                    connection,
                    self._context.clock(),
                    namespace,
                    DELETED,
                    Change(events.POLICY, f"last verified more than {days} days ago"),
                    # By their ids every process finds what it has to forget.
                    after={"examples": old},
                )
        return len(old)

    # -- a new embedding model

    async def without_embedding(self, limit: int = 256) -> list[Example]:
        """Active and candidate examples that lack a vector of the current embedding model."""
        async with self._context.database.read() as connection:
            return await examples.lacking(
                connection, self._context.embedding_model, self._context.caches.dimension, limit
            )

    async def add_embeddings(self, items: Sequence[ExampleEmbedding]) -> int:
        """Adds vectors of the current model and looks for conflicts; returns for how many
        examples. One event for each namespace. Raises InvalidVector."""
        units = {
            item.example_id: unit(item.vector, self._context.caches.dimension) for item in items
        }
        model = self._context.embedding_model
        async with self._context.change() as connection:
            stored = await examples.numbered(connection, [item.example_id for item in items])
            done = [
                stored[item.example_id]
                for item in items
                if item.example_id in stored and stored[item.example_id][1].version == item.version
            ]
            await examples.set_vectors(
                connection, model, {seq: units[each.id] for seq, each in done}
            )
            embedded = [each for _, each in done]
            await example_writes.link_conflicts(self._context, connection, embedded, units)
            for namespace in sorted({each.namespace for each in embedded}):
                own = [each.id for each in embedded if each.namespace == namespace]
                await events.append(
                    connection,
                    self._context.clock(),
                    namespace,
                    "examples.embedded",
                    Change(events.SYSTEM, f"vectors of {model}"),
                    after={"examples": own},
                )
        return len(done)

    # Last: below it the name of the builtin would mean this method.

    async def list(
        self,
        where: ExampleFilter = EVERY_EXAMPLE,
        *,
        sort: RuleSort = RuleSort.NEWEST,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Examples in this order. A cursor goes with the order it was given out for.
        Raises InvalidCursor."""
        await self._context.exposures.count()
        kind = f"examples-{sort.value}"
        after = paging.decode_place(kind, cursor, place_length(sort))
        async with self._context.database.read() as connection:
            found, total = await examples.page(connection, where, limit + 1, after, sort)
        return paging.page_of_places(kind, found, total, limit)


async def find(
    connection: AsyncConnection, example_id: str, expected_version: int | None = None
) -> tuple[int, Example]:
    """Sequence number and example. Raises UnknownExample, VersionConflict."""
    found = await examples.find(connection, example_id)
    if found is None:
        raise UnknownExample(example_id)
    if expected_version is not None and found[1].version != expected_version:
        raise VersionConflict(example_id, expected_version, found[1].version, "Example")
    return found


async def _check_unique(connection: AsyncConnection, example: Example) -> None:
    """Raises DuplicateExample."""
    same = await examples.find_by_text(
        connection, example.namespace, example_writes.hash_of(example)
    )
    if same is not None and same[1].id != example.id:
        raise DuplicateExample(same[1].id)


def _similarity(vectors: dict[str, Vector], one: str, other: str) -> float:
    """Cosine of two questions; 0 where one has no vector of this model (any more)."""
    if one not in vectors or other not in vectors or len(vectors[one]) != len(vectors[other]):
        return 0.0
    return round(float(vectors[one] @ vectors[other]), 6)


def _cosines(stored: Sequence[tuple[int, Vector]], query: Vector) -> list[tuple[int, float]]:
    """(seq, cosine)."""
    if not stored:
        return []
    cosines = np.stack([vector for _, vector in stored]) @ query
    return [(seq, round(each, 6)) for (seq, _), each in zip(stored, cosines.tolist(), strict=True)]
