"""Whole SQLite transactions in one visit to a thread.

Through the async driver every statement is up to four visits, each of which waits for the
interpreter, and on a busy event loop the file stays locked all that time. The same repository code
runs here: its coroutines wait for SQL only, so over a plain connection they end without ever being
suspended.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store import jsontext
from rules_store.sqlite import Begin, set_up_sqlite

T = TypeVar("T")


class DirectConnection:
    """One connection in one thread; the caller sees to it that writers take turns. `begin` begins
    each of its transactions, whose statements wait `busy_timeout` seconds for other processes."""

    def __init__(self, url: URL, begin: Begin, busy_timeout: float) -> None:
        self._begin = begin
        self.engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            json_serializer=jsontext.dumps,
            json_deserializer=jsontext.loads,
        )
        set_up_sqlite(self.engine, None, busy_timeout)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{begin.__name__}")
        self._connection: Connection | None = None

    async def run(
        self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]], patience: float
    ) -> T:
        """`patience`: seconds to wait for another process's write."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._transact, work, patience)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self.engine.dispose()

    def _transact(
        self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]], patience: float
    ) -> T:
        # Kept from one transaction to the next: taking it out of the pool costs as much as a write.
        connection = self._connection = self._connection or self.engine.connect()
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            # By the driver itself, as `rules_store.hot` works. SQLAlchemy's own transaction is only
            # its way to keep count.
            self._begin(driver, patience)
            result = _run(work(cast(AsyncConnection, _Plain(connection, driver))))
            driver.commit()
            if connection.in_transaction():
                connection.commit()
            return result
        except BaseException:
            # Whatever state the error has left it in, the next write gets a new one.
            self._connection = None
            connection.close()
            raise


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that is never suspended. Raises RuntimeError where it is."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    work.close()
    raise RuntimeError("a transaction may wait for SQL only")


class _Plain:
    """The part of an AsyncConnection that the repository uses, over a plain connection."""

    def __init__(self, connection: Connection, driver: sqlite3.Connection) -> None:
        self._connection = connection
        self.driver = driver
        self.dialect = connection.dialect

    async def execute(self, *arguments: Any) -> Any:
        return self._connection.execute(*arguments)

    async def scalar(self, *arguments: Any) -> Any:
        return self._connection.scalar(*arguments)

    async def scalars(self, *arguments: Any) -> Any:
        return self._connection.scalars(*arguments)
