"""Connections and transactions, and the only place that knows which database it talks to."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import (
    URL,
    make_url,
    text,
)
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from rules_store.database import json_codec
from rules_store.database.postgresql import (
    CHANNEL,
    connect_arguments,
    listen,
    notice_ended_connections,
)
from rules_store.database.sqlite.setup import (
    POLL,
    begin_deferred,
    begin_immediate,
    begin_log_anew,
    checkpoint,
    give_way,
    set_up_sqlite,
)
from rules_store.database.sqlite.sync_connection import Work
from rules_store.database.sqlite.writer import DirectConnection
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

T = TypeVar("T")


class Look(Protocol):
    """Runs `work`, which may await SQL that reads and nothing else, in one consistent view."""

    async def __call__(self, work: Work[T]) -> T: ...


_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
_EVENT_LOCK = 0x7474636C  # PostgreSQL advisory lock: 'ttcl'
_TAKE_TURN = text(f"SELECT pg_advisory_xact_lock({_EVENT_LOCK}), pg_notify('{CHANNEL}', '')")


class Database:
    """Pools of connections. On SQLite one connection writes, in order of arrival."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.url = parse_url(url)
        self._options = options
        self._writes = self._reads = _engine(self.url, options, options.pool_size)
        if not self.is_sqlite:
            self._reads = self._writes.execution_options(isolation_level="REPEATABLE READ")
        else:
            self._writes = _engine(self.url, options, 1)
            set_up_sqlite(self._reads.sync_engine, "BEGIN", options.busy_timeout)
            set_up_sqlite(self._writes.sync_engine, "BEGIN IMMEDIATE", POLL)
            self._direct = DirectConnection(self.url, begin_immediate, POLL)
            self._looks = DirectConnection(self.url, begin_deferred, options.busy_timeout)
            self._tidier = ThreadPoolExecutor(1, "sqlite-checkpoint", initializer=give_way)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    async def close(self) -> None:
        await self._reads.dispose()
        await self._writes.dispose()
        if self.is_sqlite:
            await self._direct.close()
            await self._looks.close()
            self._tidier.shutdown(wait=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view. Raises StoreUnavailable."""
        with _translated():
            async with self._reads.connect() as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Look]:
        """For what is read all the time, beside the requests: on SQLite each look is one visit to a
        thread. Raises StoreUnavailable."""
        if not self.is_sqlite:
            async with self.read() as connection:
                yield looks_through(connection)
            return
        with _translated():
            yield partial(self._looks.run, patience=self._options.busy_timeout)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block. Raises StoreUnavailable."""
        if not self.is_sqlite:
            with _translated():
                async with self._writes.begin() as connection:
                    yield connection
            return
        patience = self._options.busy_timeout
        async with self._direct.turn(patience):
            with _translated():
                async with self._writes.connect() as connection:
                    (await connection.get_raw_connection()).info["patience"] = patience
                    async with connection.begin():
                        yield connection

    async def transact(
        self,
        work: Work[T],
        *,
        hurried: bool = False,
        awaited: bool = False,
    ) -> T:
        """`work` in one transaction. Raises StoreUnavailable.

        `work` may await SQL and nothing else. On SQLite it is one visit to a thread; through the
        async driver every statement is up to four. `hurried` gives up on an SQLite file that is
        stuck after `begin_timeout` instead of `busy_timeout`, and on a PostgreSQL server that does
        not answer within it; `awaited`, where an answer waits for its end, on one that does not
        within `busy_timeout`. Either is short, and shares SQLite's transaction with its like.
        """
        options = self._options
        patience = options.begin_timeout if hurried else options.busy_timeout
        if not self.is_sqlite:
            return await self._patiently(work, patience if hurried or awaited else None)
        with _translated():
            return await self._direct.run(work, patience, short=hurried or awaited)

    async def _patiently(self, work: Work[T], seconds: float | None) -> T:
        async def transact() -> T:
            async with self.write() as connection:
                return await work(connection)

        if seconds is None:
            return await transact()
        task = asyncio.create_task(transact())
        try:
            done, _ = await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            # Not awaited: a server that hangs does not answer a cancellation either.
            task.cancel()
            raise StoreUnavailable("The database does not answer in time.")
        return task.result()

    async def tidy(self) -> None:
        """What a database wants done now and then, apart from the requests. Raises
        StoreUnavailable."""
        if self.is_sqlite:
            with _translated(), self._direct.checkpointing():
                path = str(self.url.database)
                loop = asyncio.get_running_loop()
                if await loop.run_in_executor(self._tidier, checkpoint, path):
                    # Not by a thread that gives way: writers wait for it.
                    await asyncio.to_thread(begin_log_anew, path)

    async def order_events(self, connection: AsyncConnection) -> None:
        """Makes event ids of concurrent transactions become visible in their order.

        An index that has seen event n may then forget about everything up to n. SQLite's write
        lock does it already; on PostgreSQL writers of events queue on an advisory lock, and their
        commit wakes who listens.
        """
        if not self.is_sqlite:
            await connection.execute(_TAKE_TURN)

    async def listen(self, heard: Callable[[], None]) -> None:
        """Calls `heard` when another process has written events, as far as the database tells;
        until cancelled."""
        if not self.is_sqlite:
            await listen(self.url, heard)


def looks_through(connection: AsyncConnection) -> Look:
    async def look(work: Work[T]) -> T:
        return await work(connection)

    return look


def parse_url(url: str) -> URL:
    """The URL with an async driver. Raises StoreUnavailable."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreUnavailable(
            "The database URL is not one: write sqlite:///PATH or postgresql://USER@HOST/NAME."
        ) from error
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise StoreUnavailable(f"Databases of the kind {backend!r} are not supported.")
    if backend == "sqlite" and parsed.drivername not in (backend, _DRIVERS[backend]):
        # Said before the file is made that nothing would then use.
        driver = parsed.get_driver_name()
        raise StoreUnavailable(
            f"The database driver {driver!r} is not installed: write sqlite:///PATH."
        )
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreUnavailable("The database URL names no file: write sqlite:///PATH.")
    if parsed.drivername == backend:
        parsed = parsed.set(drivername=_DRIVERS[backend])
    return parsed


def _engine(url: URL, options: StoreOptions, connections: int) -> AsyncEngine:
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_async_engine(
            url,
            connect_args={} if is_sqlite else connect_arguments(options),
            pool_size=connections,
            pool_use_lifo=True,  # the connection whose caches are warm
            max_overflow=0,
            pool_timeout=options.busy_timeout,
            json_serializer=json_codec.dumps,
            json_deserializer=json_codec.loads,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        driver = getattr(error, "name", None) or url.drivername
        raise StoreUnavailable(
            f"The database driver {driver!r} is not installed: pip install 'ttcl[postgres]'."
        ) from error
    if not is_sqlite:
        notice_ended_connections(engine.sync_engine)
    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError):
        raise
    except DBAPIError as error:
        raise StoreUnavailable(f"The database can't be used now: {error.orig}.") from error
    except (PoolTimeout, sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"The database can't be used now: {error}.") from error
