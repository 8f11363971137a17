"""The in-memory caches of SQL, and how they keep up with it: by event number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import Database
from rules_store.index import snapshot
from rules_store.index.event_feed import EventBatch, next_events
from rules_store.index.evidence_cache import EvidenceCache
from rules_store.index.example_index import ExampleIndex
from rules_store.index.namespace_cache import NamespaceCache
from rules_store.index.rule_index import RuleIndex
from rules_store.models.keys import ADMIN, ApiKey, Secret
from rules_store.models.stats import Parity
from rules_store.options import StoreOptions
from rules_store.repository import embeddings, events, examples, keys, namespaces, rules

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 5000


class Caches:
    """Rules and examples (FAISS), namespaces, keys and evidence as this process knows them.

    Every method that is awaited may raise StoreUnavailable; the caches are as they were then.
    """

    def __init__(
        self,
        database: Database,
        embedding_model: str,
        dimension: int | None,
        data_dir: Path | None,
        options: StoreOptions,
        clock: Callable[[], datetime],
    ) -> None:
        self.rules = RuleIndex(dimension)
        self.examples = ExampleIndex(dimension)
        """As of the last event of `rules`, or later."""
        self.namespaces = NamespaceCache(options)
        self.secrets: dict[str, Secret] = {}
        """Of API keys, by their digests."""
        self._options = options
        self.evidence = EvidenceCache(embedding_model, options.precedents, options.choices)
        self._database = database
        self._embedding_model = embedding_model
        self._dimension = dimension
        self._clock = clock
        self._options = options
        self._snapshot_path = None if data_dir is None else data_dir / "index" / "rules.index"
        self._snapshot_event = 0
        # Held while events are read and applied: an older view of a rule must not be applied
        # after a newer one.
        self._following = asyncio.Lock()

    def _empty_evidence(self) -> EvidenceCache:
        options = self._options
        return EvidenceCache(self._embedding_model, options.precedents, options.choices)

    def all_keys(self) -> list[ApiKey]:
        """All of them, but for the admin key, which is nobody's in particular."""
        present = (each.key for each in self.secrets.values() if each.valid_until is None)
        return [key for key in present if key.id != ADMIN]

    def live_keys(self) -> list[ApiKey]:
        """Those that are neither revoked nor expired."""
        now = self._clock()
        return [key for key in self.all_keys() if key.live(now)]

    @property
    def dimension(self) -> int | None:
        """Of the embedding model's vectors; None while none has been seen."""
        return self.rules.dimension or self.examples.dimension

    async def load(self) -> None:
        """Fills them, the rules from the snapshot where there is one that fits."""
        if await self._load_snapshot():
            # After the rules have a last event: what changes from here on is caught up with.
            self.examples = await self._all_examples()
        else:
            await self.rebuild()
        async with self._database.read() as connection:
            # After the index has a last event: what changes from here on is caught up with.
            self.namespaces.update(await namespaces.every(connection))
            self.secrets = await keys.by_hash(connection)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Applies what any process has committed since this one last looked."""
        # The connection first: a writer holds its own while it waits to follow.
        async with self._database.read() as connection, self._following:
            await self._apply_events(self.rules, self.examples, connection)
            await self.evidence.follow(connection, self._clock())

    async def follow(self, connection: AsyncConnection) -> None:
        """As `catch_up`, but through this connection and without the evidence."""
        async with self._following:
            await self._apply_events(self.rules, self.examples, connection)

    async def rebuild(self) -> None:
        """Builds new indexes of rules and examples from SQL aside and swaps them in."""
        fresh = RuleIndex(self._dimension)
        async with self._database.read() as connection:
            # Before the rules are read: what changes meanwhile is applied again below.
            fresh.last_event = await events.last_id(connection)
        seq = 0
        while True:
            async with self._database.read() as connection:
                rows = await embeddings.rows_after(
                    connection, self._embedding_model, seq, _ROWS_AT_ONCE
                )
            if not rows:
                break
            seq = rows[-1].seq
            await asyncio.to_thread(fresh.extend, rows)
        fresh_examples = await self._all_examples()
        async with self._database.read() as connection, self._following:
            await self._apply_events(fresh, fresh_examples, connection)
            self.rules, self.examples = fresh, fresh_examples

    async def change_model(self, embedding_model: str) -> None:
        """From now on of this model's vectors, whatever their dimension is."""
        options = self._options
        self._embedding_model, self._dimension = embedding_model, None
        evidence = EvidenceCache(embedding_model, options.precedents, options.choices)
        await self.rebuild()
        async with self._database.read() as connection:
            await evidence.follow(connection, self._clock())
        self.evidence = evidence

    async def _all_examples(self) -> ExampleIndex:
        """The active ones from SQL."""
        fresh, seq = ExampleIndex(self._dimension), 0
        while True:
            async with self._database.read() as connection:
                rows = await examples.indexed_after(
                    connection, self._embedding_model, seq, _ROWS_AT_ONCE
                )
            if not rows:
                return fresh
            seq = rows[-1].seq
            await asyncio.to_thread(fresh.extend, rows)

    async def parity(self) -> Parity:
        """The indexes of rules and examples against SQL, as of one moment, whoever writes
        meanwhile."""
        async with self._database.read() as connection:
            await self.follow(connection)
            last = await events.last_id(connection)
            model, dimension = self._embedding_model, self.dimension
            stored, unembedded = await embeddings.count_indexable(connection, model, dimension)
            of_examples = await examples.count_indexable(connection, model, dimension)
        behind = max(0, last - self.rules.last_event)
        return Parity(len(self.rules), stored, unembedded, behind, len(self.examples), *of_examples)

    async def _apply_events(
        self, index: RuleIndex, example_index: ExampleIndex, connection: AsyncConnection
    ) -> None:
        while True:
            batch = await next_events(
                connection, index.last_event, self._embedding_model, self.namespaces
            )
            if batch is None:
                return
            self._apply(index, example_index, batch)

    def _apply(self, index: RuleIndex, example_index: ExampleIndex, batch: EventBatch) -> None:
        """No await here: a search sees all of these changes or none."""
        if batch.secrets is not None:
            self.secrets = batch.secrets
        for event in batch.events:
            if event.kind == events.NAMESPACE_DELETED:
                index.forget(event.namespace)
                example_index.forget(event.namespace)
                self.evidence.forget(event.namespace)
            elif event.kind == events.KEY_WITHDRAWN:
                # Rows are gone that it knows; it fills again with the next `catch_up`.
                self.evidence = self._empty_evidence()
        index.put_all(batch.rows)
        example_index.remove(batch.deleted_examples)
        example_index.put_all(batch.examples)
        index.last_event = batch.events[-1].id
        for name in batch.changed - batch.namespaces.keys():
            self.namespaces.forget(name)
        self.namespaces.update(batch.namespaces)

    # -- the snapshot of the rules' index

    async def save_snapshot(self) -> None:
        """Writes the index to the data directory. A full disk is logged, no error."""
        if self._snapshot_path is None or self.rules.last_event == self._snapshot_event:
            return
        what = snapshot.copy(self.rules)
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
        self.rules = index
        self._snapshot_event = index.last_event
        return True

    async def _origin(self, connection: AsyncConnection) -> snapshot.Origin:
        store = await rules.identity_of_store(connection)
        return snapshot.Origin(store, self._embedding_model)
