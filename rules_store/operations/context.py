"""What every group of operations stands on, and the transaction that all changes go through."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import Database
from rules_store.errors import StoreUnavailable
from rules_store.index.caches import Caches
from rules_store.index.namespace_cache import NamespaceCache
from rules_store.index.rule_index import RuleIndex, unit
from rules_store.models.rules import Vectors
from rules_store.operations.exposures import ExposureCounter
from rules_store.options import StoreOptions
from rules_store.repository.jobs import HandOut

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StoreContext:
    """One per open store; all groups of operations share it and hold nothing else."""

    database: Database
    caches: Caches
    exposures: ExposureCounter
    options: StoreOptions
    model_name: str
    """Of the embedding model, as it calls itself."""
    embedding_model: str
    """Under which its vectors are kept; see `operations.embedder`."""
    clock: Callable[[], datetime]
    """The time in UTC, aware."""
    hand_out: HandOut | None = None
    """Told of a learning job in the transaction that makes it due."""

    @property
    def index(self) -> RuleIndex:
        """Active and candidate rules in memory; `Caches.rebuild` puts another one in its place."""
        return self.caches.rules

    @property
    def namespaces(self) -> NamespaceCache:
        """Namespaces in memory."""
        return self.caches.namespaces

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction that may append events. Inside, before its own changes, the caches
        equal SQL and no other writer can change that; they take up the changes after the commit.
        Raises StoreUnavailable."""
        async with self.database.write() as connection:
            await self.database.order_events(connection)
            await self.caches.follow(connection)
            yield connection
        await self.take_up()

    async def take_up(self) -> None:
        """Brings the caches up to what was committed; where that fails it is logged, no error."""
        try:
            await self.caches.catch_up()
        except StoreUnavailable as error:
            logger.warning("committed, but the index could not be caught up yet: %s", error)

    async def announce_job(self, connection: AsyncConnection, key: str, *, new: bool) -> None:
        """Tells `hand_out` of a job that this transaction makes due."""
        if self.hand_out is not None:
            raw = (await connection.get_raw_connection()).driver_connection
            await self.hand_out(raw, key, new=new)

    def units(self, vectors: Vectors) -> Vectors:
        """The vectors at length 1. Raises InvalidVector."""
        dimension = self.caches.dimension
        return Vectors(
            text=None if vectors.text is None else unit(vectors.text, dimension),
            trigger=None if vectors.trigger is None else unit(vectors.trigger, dimension),
        )
