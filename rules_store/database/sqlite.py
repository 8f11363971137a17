"""SQLite: one connection writes, in the order of arrival, and a few read (WAL).

Both go through SQLAlchemy's asyncio engine and aiosqlite, which hands every call to a thread. A
short write, as each request makes two, is run in the event loop's own thread instead: the two take
1.7 ms of the processor in a thread, 0.8 ms in the loop's, and 0.3 ms there with their statements
compiled (`rules_store.database.compiled`). The loop never waits for a lock. It does wait for the
disk: one that may hang is a reason for PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiosqlite
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from rules_store.database.compiled import DRIVER
from rules_store.database.interface import Work, new_engine, pool_options, translated
from rules_store.database.lock import held_alone
from rules_store.database.private import keep_private, make_file
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

T = TypeVar("T")

_RETRY = 0.005  # seconds until a file that another process holds is tried again
_LOG_PAGES = 40_000
"""Of the write-ahead log, after which whoever commits moves it into the file (160 MiB). `tidy` does
that before, so that no request waits for the disk."""
_LONG_LOG = 20_000
"""Pages after which the log is begun anew, for which writers must wait a moment."""
_MAPPED = 256 * 2**20  # bytes of the file read without copying: a scan takes half the time


class SqliteDatabase:
    def __init__(self, url: URL, options: StoreOptions, *, read_only: bool = False) -> None:
        self.url = url
        self._path = Path(url.database or "")
        self._options = options
        connect = partial(_connect, self._path, read_only)
        self._reads = new_engine(
            url,
            async_creator=partial(connect, options.busy_timeout),
            **pool_options(options),
        )
        # Waits for no other process inside SQLite: `_begin` does.
        self._writes = new_engine(url, async_creator=partial(connect, 0.0), poolclass=NullPool)
        self._writer: AsyncConnection | None = None
        """Kept from one write to the next: a new one costs more than most writes."""
        self._turn = asyncio.Lock()
        self._file: tuple[int, int] | None = None
        """Device and number of the file that was opened."""
        self._ended = 0
        """Turns that have ended."""
        self._closed = False

    async def prepare(self) -> None:
        await asyncio.to_thread(_prepare, self._path, self._options.busy_timeout)

    def check_there(self) -> None:
        """A file that is deleted or replaced is written on by who has it open, for nobody."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreUnavailable(
                f"The database file {self._path} is gone: {error.strerror}."
            ) from error
        now = (found.st_dev, found.st_ino)
        if self._file is None:
            self._file = now
        elif self._file != now:
            raise StoreUnavailable(
                f"The database file {self._path} is another one than was opened."
            )

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        with held_alone(self._path, "copy"):
            yield

    async def close(self) -> None:
        async with self._turn:  # after who waits
            self._closed = True
            await self._forget_writer()
        await self._writes.dispose()
        await self._reads.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with translated():
            async with self._reads.connect() as connection, connection.begin():
                await connection.exec_driver_sql("BEGIN")
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        async with self._write(self._options.busy_timeout) as connection:
            yield connection

    async def transact(
        self, work: Work[T], *, at_request_start: bool = False, at_request_end: bool = False
    ) -> T:
        options = self._options
        patience = options.begin_timeout if at_request_start else options.busy_timeout
        async with self._write(patience, in_place=at_request_start or at_request_end) as connection:
            return await work(connection)

    async def order_events(self, connection: AsyncConnection, *, patiently: bool = False) -> None:
        """The write lock does it already."""

    async def older_processes(self, connection: AsyncConnection) -> list[str]:
        """A file does not know who has it open: `rules_store.database.lock` does."""
        return []

    async def listen(self, heard: Callable[[], None]) -> None:
        """A file tells nobody."""

    async def tidy(self) -> None:
        with translated():
            await asyncio.to_thread(checkpoint, self._path)

    @asynccontextmanager
    async def _write(
        self, patience: float, *, in_place: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction. `patience`: seconds to wait for this process's other writers while they
        make no progress, and then for other processes."""
        await self._take_turn(patience)
        try:
            if self._closed:
                raise StoreUnavailable("The database is closed.")
            with translated():
                if self._writer is None:
                    self._writer = await self._writes.connect()
                writer = self._writer
                driver = _driver(writer)
                driver.in_place = in_place
                writer.info[DRIVER] = driver._conn if in_place else None
                await _begin(driver, patience)
                yield writer
                # SQLAlchemy counts a transaction from the first statement that it is given.
                await (writer if writer.in_transaction() else driver).commit()
        except BaseException:
            # Whatever state it is in, the next write gets a new one.
            await self._forget_writer()
            raise
        finally:
            self._ended += 1
            self._turn.release()

    async def _take_turn(self, patience: float) -> None:
        while True:
            ended = self._ended
            try:
                async with asyncio.timeout(patience):
                    await self._turn.acquire()
                return
            except TimeoutError:
                if ended == self._ended:
                    raise StoreUnavailable("The database is busy: a write is stuck.") from None

    async def _forget_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                await writer.invalidate()
                await writer.close()


class _Connection(aiosqlite.Connection):
    in_place = False
    """Calls are made in the thread of who makes them."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.in_place:
            return fn(*args, **kwargs)
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


def _driver(connection: AsyncConnection) -> _Connection:
    assert connection.sync_connection is not None
    driver = connection.sync_connection.connection.driver_connection
    assert isinstance(driver, _Connection)
    return driver


async def _connect(path: Path, read_only: bool, busy_timeout: float) -> _Connection:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            _address(path, read_only),
            uri=True,
            timeout=busy_timeout,
            isolation_level=None,  # transactions are begun here, not by the driver
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        # What a savepoint or a statement of many rows would undo is kept in memory, not in files.
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute(f"PRAGMA mmap_size = {_MAPPED}")
        return connection

    connection = _Connection(connect, iter_chunk_size=64)
    connection._thread.daemon = True  # a hanging disk keeps no process alive
    await connection
    return connection


def _address(path: Path, read_only: bool) -> str:
    """Of a file that is there: none is made. Where the folder can't be written to, and nobody has
    the file open, it is read without the files that SQLite would put beside it."""
    address = f"file:{quote(str(path.absolute()))}"
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return f"{address}?mode={'ro' if read_only else 'rw'}"
    in_use = path.with_name(f"{path.name}-wal").exists()
    return f"{address}?mode=ro" if in_use else f"{address}?mode=ro&immutable=1"


async def _begin(driver: aiosqlite.Connection, patience: float) -> None:
    """Takes the write lock. Raises sqlite3.OperationalError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            await driver.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(_RETRY)


def checkpoint(path: Path) -> None:
    """Moves the write-ahead log into the file, as far as that holds nobody up. Where there is
    always somebody who writes it would only grow: for the rest of a long one writers wait. Raises
    sqlite3.Error."""
    with closing(sqlite3.connect(path, timeout=0.02, isolation_level=None)) as connection:
        pages: int = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        if pages >= _LONG_LOG:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()


def _prepare(path: Path, busy_timeout: float) -> None:
    """Creates the file where there is none, checks that it is ours to write, keeps others from
    reading it, switches to WAL.

    Raises StoreUnavailable with what to mend.
    """
    try:
        make_file(path)
        # SQLite gives those that it makes beside the database the rights of this one.
        for beside in ("-wal", "-shm"):
            keep_private(path.with_name(path.name + beside))
        connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"The database file {path} can't be opened: {error}.") from error
    try:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if names and "alembic_version" not in names:
            raise StoreUnavailable(
                f"The database file {path} belongs to another program; "
                "point the database URL at another file."
            )
        _switch_to_wal(connection, busy_timeout)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"The database file {path} can't be used ({error}); mend it, restore a copy, "
            "or point the database URL at another file."
        ) from error
    finally:
        connection.close()


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
