"""The repository's coroutines over a plain SQLite connection. They wait for SQL only, so there they
end without ever being suspended."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]


class PlainConnection:
    """Kept from one transaction to the next: taking it out of the pool costs as much as a write.
    Belongs to one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    @property
    def driver(self) -> sqlite3.Connection:
        """For what begins a transaction: SQLAlchemy's own is only its way to keep count."""
        if self._connection is None:
            self._connection = self._engine.connect()
        driver = self._connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        return driver

    def run(self, work: Work[T]) -> T:
        """Inside the transaction that has begun. Raises RuntimeError where it is suspended."""
        driver = self.driver
        assert self._connection is not None
        coroutine = work(cast(AsyncConnection, _Adapter(self._connection, driver)))
        try:
            coroutine.send(None)
        except StopIteration as done:
            return cast(T, done.value)
        coroutine.close()
        raise RuntimeError("a transaction may wait for SQL only")

    def run_apart(self, work: Work[T]) -> tuple[T | None, Exception | None]:
        """`run` behind a savepoint: its result, or its error, which leaves the transaction as it
        was. Raises what has ended the whole transaction, as a full disk does."""
        driver = self.driver
        driver.execute("SAVEPOINT work")
        result, failure = None, None
        try:
            result = self.run(work)
        except Exception as error:
            if not driver.in_transaction:
                raise
            driver.execute("ROLLBACK TO work")
            failure = error
        driver.execute("RELEASE work")
        return result, failure

    def commit(self) -> None:
        self.driver.commit()
        assert self._connection is not None
        if self._connection.in_transaction():
            self._connection.commit()

    def forget(self) -> None:
        """Whatever state an error has left it in, the next transaction gets a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # whoever works with it goes on whatever happens
                connection.close()


class _Adapter:
    """The part of an AsyncConnection that the repository uses."""

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
