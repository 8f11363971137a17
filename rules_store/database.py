"""Connections and transactions, and the only place that knows which database it talks to."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Table,
    event,
    extract,
    func,
    literal_column,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from rules_store import jsontext
from rules_store.direct import DirectWriter
from rules_store.errors import StoreUnavailable
from rules_store.types import StoreOptions

T = TypeVar("T")

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
# Seconds that SQLite itself waits for the lock of another process before the wait is renewed. Its
# pauses grow with the wait, up to 0.1 s, in which a busy neighbour takes the lock many times.
_POLL = 0.02
_MAPPED = 256 * 2**20  # bytes of the file read without copying: a scan takes half the time
_EVENT_LOCK = 0x7474636C  # PostgreSQL advisory lock: 'ttcl'


class Database:
    """Pools of connections. On SQLite one connection writes, in order of arrival."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.url = parse_url(url)
        self._options = options
        self._reads = _engine(self.url, options, options.pool_size)
        self._writes = self._reads
        if self.is_sqlite:
            self._writes = _engine(self.url, options, 1)
            _set_up_sqlite(self._reads.sync_engine, "BEGIN", options.busy_timeout)
            _set_up_sqlite(self._writes.sync_engine, "BEGIN IMMEDIATE", _POLL)
            self._direct = DirectWriter(self.url)
            _set_up_sqlite(self._direct.engine, "BEGIN IMMEDIATE", _POLL)
        self._turn = asyncio.Lock()
        self._queue: dict[asyncio.Timeout, float] = {}

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    async def close(self) -> None:
        await self._reads.dispose()
        await self._writes.dispose()
        if self.is_sqlite:
            await self._direct.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view. Raises StoreUnavailable."""
        with _translated():
            async with self._reads.connect() as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block. Raises StoreUnavailable."""
        if not self.is_sqlite:
            with _translated():
                async with self._writes.begin() as connection:
                    yield connection
            return
        patience = self._options.busy_timeout
        async with self._writers_turn(patience):
            with _translated():
                async with self._writes.connect() as connection:
                    (await connection.get_raw_connection()).info["patience"] = patience
                    async with connection.begin():
                        yield connection

    async def transact(
        self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]], *, hurried: bool = False
    ) -> T:
        """`work` in one transaction. Raises StoreUnavailable.

        `work` may await SQL and nothing else. On SQLite it is one visit to a thread; through the
        async driver every statement is up to four. `hurried` gives up on an SQLite file that is
        stuck after `begin_timeout` instead of `busy_timeout`.
        """
        if not self.is_sqlite:
            async with self.write() as connection:
                return await work(connection)
        options = self._options
        patience = options.begin_timeout if hurried else options.busy_timeout
        async with self._writers_turn(patience):
            with _translated():
                return await self._direct.run(work, patience)

    @asynccontextmanager
    async def _writers_turn(self, patience: float) -> AsyncIterator[None]:
        """Writers of this process queue here: that is fair, and costs no polling of the file.

        `patience` bounds how long the queue may stand still, not how long it may be.
        """
        try:
            async with asyncio.timeout(patience) as limit:
                self._queue[limit] = patience
                try:
                    await self._turn.acquire()
                finally:
                    del self._queue[limit]
        except TimeoutError:
            raise StoreUnavailable("The database is busy: a write is stuck.") from None
        try:
            yield
            now = asyncio.get_running_loop().time()
            for limit, each in self._queue.items():
                if not limit.expired():
                    limit.reschedule(now + each)
        finally:
            self._turn.release()

    async def order_events(self, connection: AsyncConnection) -> None:
        """Makes event ids of concurrent transactions become visible in their order.

        An index that has seen event n may then forget about everything up to n. SQLite's write
        lock does it already; on PostgreSQL writers of events queue on an advisory lock.
        """
        if not self.is_sqlite:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _EVENT_LOCK}
            )


def insert_unless_there(connection: AsyncConnection, table: Table) -> Insert:
    """INSERT of the values it is executed with, which does nothing (rowcount 0) where a unique
    constraint is hit."""
    return _insert_unless_there(connection.dialect.name, table)


@cache
def _insert_unless_there(dialect: str, table: Table) -> Insert:
    # Building a statement costs more than running it, so one is built a table.
    make = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return make(table).on_conflict_do_nothing()


def contains(dialect: str, column: Column[str], part: str) -> ColumnElement[bool]:
    """Whether the column has `part` in it, in any case (on SQLite: of ASCII letters)."""
    pattern = "%" + re.sub(r"([%_/])", r"/\1", part) + "%"
    # SQLite's own LIKE folds as lower() does there, at a third of the time.
    like = column.like if dialect == "sqlite" else column.ilike
    return like(pattern, escape="/")


def utc_parts(
    connection: AsyncConnection, moment: Column[Any], *, hourly: bool
) -> list[ColumnElement[Any]]:
    """Year, month, day and, if `hourly`, hour in UTC, to group by."""
    # SQLite stores UTC; PostgreSQL would take the session's zone.
    sqlite = connection.dialect.name == "sqlite"
    value = moment if sqlite else func.timezone(literal_column("'UTC'"), moment)
    fields = ["year", "month", "day"] + (["hour"] if hourly else [])
    return [extract(field, value) for field in fields]


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
    try:
        return create_async_engine(
            url,
            pool_size=connections,
            pool_use_lifo=True,  # the connection whose caches are warm
            max_overflow=0,
            pool_timeout=options.busy_timeout,
            json_serializer=jsontext.dumps,
            json_deserializer=jsontext.loads,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        driver = getattr(error, "name", None) or url.drivername
        raise StoreUnavailable(
            f"The database driver {driver!r} is not installed: pip install {driver}."
        ) from error


def _set_up_sqlite(engine: Engine, begin: str, busy_timeout: float) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA mmap_size = {_MAPPED}")
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        deadline = time.monotonic() + connection.info.get("patience", 0.0)
        while True:
            try:
                connection.exec_driver_sql(begin)
                return
            except OperationalError as error:
                if "locked" not in str(error.orig) or time.monotonic() >= deadline:
                    raise


def prepare_sqlite(path: Path, busy_timeout: float) -> None:
    """Creates the file where there is none, checks that it is ours to write, switches to WAL.

    Raises StoreUnavailable with what to mend.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"The database file {path} can't be opened: {error}.") from error
    try:
        _switch_to_wal(connection, busy_timeout)
        connection.execute("BEGIN IMMEDIATE")
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"The database file {path} can't be used ({error}); mend it, restore a copy, "
            "or point the database URL at another file."
        ) from error
    finally:
        connection.close()
    if names and "alembic_version" not in names:
        raise StoreUnavailable(
            f"The database file {path} belongs to another program; "
            "point the database URL at another file."
        )


def _switch_to_wal(connection: sqlite3.Connection, patience: float) -> None:
    # The switch needs the file alone for a moment, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


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
