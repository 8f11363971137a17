"""What every part of the store stands on: the database, the index and how it keeps up with SQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import Database, migrate, open_database
from rules_store.errors import StoreUnavailable
from rules_store.index import snapshot
from rules_store.index.event_feed import News, news
from rules_store.index.evidence_cache import KnownWorth
from rules_store.index.namespace_cache import KnownNamespaces
from rules_store.index.rule_index import RuleIndex, unit
from rules_store.models.keys import ApiKey
from rules_store.models.rules import Near, Polarity, Vector, Vectors
from rules_store.models.stats import Parity
from rules_store.options import DEFAULT_OPTIONS, StoreOptions
from rules_store.repository import (
    embeddings,
    events,
    evidence,
    jobs,
    keys,
    namespaces,
    rules,
)

logger = logging.getLogger(__name__)

_RULES_AT_ONCE = 5000


def utc_now() -> datetime:
    return datetime.now(UTC)


class StoreCore(KnownNamespaces):
    """Opened by `open`, closed by `close`; belongs to the event loop that opened it."""

    def __init__(
        self,
        database: Database,
        embedding_model: str,
        dimension: int | None,
        data_dir: Path | None,
        options: StoreOptions,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__(options)
        self.embedding_model = embedding_model
        self._database = database
        self._dimension = dimension
        self._snapshot_path = None if data_dir is None else data_dir / "index" / "rules.index"
        self._clock = clock
        self._index = RuleIndex(dimension)
        self._snapshot_event = 0
        self._keys: dict[str, tuple[str, ApiKey]] = {}
        self._worth = KnownWorth(embedding_model, options.precedents)
        self._creating = asyncio.Lock()
        self._uncounted = True
        """Whether this process may have written exposures that no rule's count has."""
        self.hand_out: jobs.HandOut | None = None
        """Told of a learning job in the transaction that makes it due."""
        # Held while events are read and applied: an older view of a rule must not be applied
        # after a newer one.
        self._following = asyncio.Lock()

    # -- opening and closing

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        embedding_model: str,
        dimension: int | None = None,
        data_dir: Path | None = None,
        options: StoreOptions = DEFAULT_OPTIONS,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Migrates the schema, loads the index, and returns a store that can be used.

        `database_url` is `sqlite:///PATH` (or `sqlite+aiosqlite:///PATH`) or `postgresql://...`.
        `dimension` None is taken from the first vector of this model, stored or written.
        `data_dir` is where a snapshot of the index is kept; None keeps none.
        Raises StoreUnavailable with one sentence that says what to mend.
        """
        await migrate.upgrade(database_url, options)
        database = open_database(database_url, options)
        store = cls(database, embedding_model, dimension, data_dir, options, clock)
        try:
            await store._load()
        except BaseException:
            await database.close()
            raise
        return store

    async def close(self) -> None:
        """Writes the index snapshot (where there is a data_dir) and closes the database."""
        try:
            await self.save_snapshot()
        except StoreUnavailable as error:
            logger.warning("index snapshot not written: %s", error)
        finally:
            await self._database.close()

    async def ping(self) -> None:
        """One trivial query. Raises StoreUnavailable."""
        async with self._database.read() as connection:
            await rules.identity_of_store(connection)

    async def _load(self) -> None:
        if not await self._load_snapshot():
            await self.rebuild()
        async with self._database.read() as connection:
            # After the index has a last event: what changes from here on is caught up with.
            self._namespaces.update(await namespaces.every(connection))
            self._keys = await keys.by_hash(connection)
        await self.catch_up()

    # -- the index

    def search(
        self,
        namespace: str,
        vector: Vector,
        polarity: Polarity,
        k: int,
        *,
        triggers: bool = True,
    ) -> Near:
        """The k active rules nearest to `vector`, most similar first; no I/O.

        Similarity is the larger cosine of text and trigger, or of the text alone. An unknown
        namespace has no rules. Raises InvalidVector.
        """
        query = unit(vector, self._index.dimension)
        return self._index.search(namespace, query, polarity, k, triggers=triggers)

    @property
    def rules_indexed(self) -> int:
        """Active and candidate rules in this process's index."""
        return len(self._index)

    def has_rules(self, namespace: str) -> bool:
        """Whether `search` could find anything in this namespace; no I/O."""
        return self._index.has_active(namespace)

    async def catch_up(self) -> None:
        """Applies to the index what any process has committed since it last looked."""
        # The connection first: a writer holds its own while it waits to follow.
        async with self._database.read() as connection, self._following:
            await self._apply_events(self._index, connection)
            await self._worth.follow(connection, self._clock())

    async def _count_exposures(self, pause: float = 0.0) -> None:
        """Brings the rules' counts up to what was written; whoever shows or uses a count asks for
        it first. Apart from the requests: they would queue for the rows of the most used rules."""
        if self._uncounted:
            self._uncounted = False
            try:
                while True:
                    if not await self._database.transact(evidence.count_exposures):
                        break
                    await asyncio.sleep(pause)
            except BaseException as error:
                self._uncounted = True
                if not isinstance(error, StoreUnavailable):
                    raise
                logger.warning("exposures are counted later: %s", error)

    async def rebuild(self) -> None:
        """Builds a new index from SQL aside and swaps it in."""
        fresh = RuleIndex(self._dimension)
        async with self._database.read() as connection:
            # Before the rules are read: what changes meanwhile is applied again below.
            fresh.last_event = await events.last_id(connection)
        seq = 0
        while True:
            async with self._database.read() as connection:
                rows = await embeddings.rows_after(
                    connection, self.embedding_model, seq, _RULES_AT_ONCE
                )
            if not rows:
                break
            seq = rows[-1].seq
            await asyncio.to_thread(fresh.extend, rows)
        async with self._database.read() as connection, self._following:
            await self._apply_events(fresh, connection)
            self._index = fresh

    async def parity(self) -> Parity:
        """The index against SQL, for /readyz; both as of one moment, whoever writes meanwhile."""
        async with self._database.read() as connection:
            await self._follow(connection)
            last = await events.last_id(connection)
            stored, unembedded = await embeddings.count_indexable(
                connection, self.embedding_model, self._index.dimension
            )
        behind = max(0, last - self._index.last_event)
        return Parity(len(self._index), stored, unembedded, behind)

    async def _follow(self, connection: AsyncConnection) -> None:
        async with self._following:
            await self._apply_events(self._index, connection)

    async def _apply_events(self, index: RuleIndex, connection: AsyncConnection) -> None:
        while True:
            found = await news(connection, index.last_event, self.embedding_model, self._namespaces)
            if found is None:
                return
            self._take(index, found)

    def _take(self, index: RuleIndex, found: News) -> None:
        """No await here: a search sees all of these changes or none."""
        if found.keys is not None:
            self._keys = found.keys
        for event in found.events:
            if event.kind == events.NAMESPACE_DELETED:
                index.forget(event.namespace)
                self._worth.forget(event.namespace)
        index.put_all(found.rows)
        index.last_event = found.events[-1].id
        for name in found.changed - found.records.keys():
            self._namespaces.pop(name, None)
        self._namespaces.update(found.records)

    async def _hand_out(self, connection: AsyncConnection, episode_id: str, *, new: bool) -> None:
        if self.hand_out is not None:
            raw = (await connection.get_raw_connection()).driver_connection
            await self.hand_out(raw, episode_id, new=new)

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction that may append events. Inside, before its own changes, the index
        equals SQL and no other writer can change that; it takes up the changes after the commit."""
        async with self._database.write() as connection:
            await self._database.order_events(connection)
            await self._follow(connection)
            yield connection
        try:
            await self.catch_up()
        except StoreUnavailable as error:
            logger.warning("committed, but the index could not be caught up yet: %s", error)

    def _units(self, vectors: Vectors) -> Vectors:
        """The vectors at length 1. Raises InvalidVector."""
        dimension = self._index.dimension
        return Vectors(
            text=None if vectors.text is None else unit(vectors.text, dimension),
            trigger=None if vectors.trigger is None else unit(vectors.trigger, dimension),
        )

    # -- the snapshot

    async def save_snapshot(self) -> None:
        """Writes the index to the data directory. A full disk is logged, no error.

        Raises StoreUnavailable.
        """
        if self._snapshot_path is None or self._index.last_event == self._snapshot_event:
            return
        what = snapshot.copy(self._index)
        async with self._database.read() as connection:
            origin = await self._origin(connection)
            mark = await events.mark(connection, what.last_event)
        try:
            await asyncio.to_thread(snapshot.write, self._snapshot_path, origin, what, mark)
            self._snapshot_event = what.last_event
        except OSError as error:
            logger.warning("index snapshot not written: %s", error)

    async def _load_snapshot(self) -> bool:
        if self._snapshot_path is None:
            return False
        async with self._database.read() as connection:
            origin = await self._origin(connection)
        loaded = await asyncio.to_thread(snapshot.read, self._snapshot_path, origin)
        if loaded is None:
            return False
        index, mark = loaded
        async with self._database.read() as connection:
            expected = await events.mark(connection, index.last_event)
        if mark != expected or self._dimension not in (None, index.dimension):
            logger.warning("index snapshot %s is stale; rebuilding from SQL", self._snapshot_path)
            return False
        self._index = index
        self._snapshot_event = index.last_event
        return True

    async def _origin(self, connection: AsyncConnection) -> snapshot.Origin:
        store = await rules.identity_of_store(connection)
        return snapshot.Origin(store, self.embedding_model)
