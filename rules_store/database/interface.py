"""What the store asks of a database, and what both kinds of it share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from rules_store.database import json_codec
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

_STARTUP_OPTION = "unsupported startup parameter"
"""As pgbouncer says it."""
T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]


class Database(Protocol):
    """Belongs to the event loop that uses it. Whatever takes a connection from it may raise
    StoreUnavailable."""

    @property
    def url(self) -> URL: ...

    async def prepare(self) -> None:
        """What has to be done before the schema is looked at."""

    async def close(self) -> None: ...

    def check_there(self) -> None:
        """Raises StoreUnavailable where the database that was opened is known to be gone."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Until the end of the block nobody else has it alone. Raises StoreUnavailable where
        somebody has. What ends with its process gives it up, however it ends."""

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One consistent view."""

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One transaction, committed at the end of the block."""

    async def transact(
        self, work: Work[T], *, at_request_start: bool = False, at_request_end: bool = False
    ) -> T:
        """`work`, which may await SQL and nothing else, in one transaction.

        `at_request_start`: a client waits for its beginning, so it gives up after `begin_timeout`
        seconds instead of `busy_timeout`. `at_request_end`: an answer waits for its end. Either
        is short.
        """

    async def order_events(self, connection: AsyncConnection, *, patiently: bool = False) -> None:
        """Makes event ids of concurrent transactions become visible in their order: an index that
        has seen event n may then forget about everything up to n. `patiently`: however long
        another process takes."""

    async def older_processes(self, connection: AsyncConnection) -> list[str]:
        """A word or two about each process of an older version that has the database open, as far
        as the database tells."""

    async def listen(self, heard: Callable[[], None]) -> None:
        """Calls `heard` when another process has written events, as far as the database tells;
        until cancelled."""

    async def tidy(self) -> None:
        """What a database wants done now and then, apart from the requests."""


def new_engine(url: URL, **options: Any) -> AsyncEngine:
    """Raises StoreUnavailable where there is no driver."""
    try:
        return create_async_engine(
            url,
            json_serializer=json_codec.dumps,
            json_deserializer=json_codec.loads,
            # Errors are kept with their jobs: not with what somebody wrote.
            hide_parameters=True,
            **options,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        driver = getattr(error, "name", None) or url.drivername
        raise StoreUnavailable(
            f"The database driver {driver!r} is not installed: pip install 'ttcl[postgres]'."
        ) from error


def pool_options(options: StoreOptions) -> dict[str, Any]:
    return {
        "pool_size": options.pool_size,
        "pool_use_lifo": True,  # the connection whose caches are warm
        "max_overflow": 0,
        "pool_timeout": options.busy_timeout,
    }


@contextmanager
def translated() -> Iterator[None]:
    """Errors of a database that can't be used become StoreUnavailable."""
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError):
        raise
    except DBAPIError as error:
        if _STARTUP_OPTION in str(error.orig):
            raise StoreUnavailable(
                "A pooler stands before the database and takes no options: set its "
                "ignore_startup_parameters to 'options', or connect to the server itself."
            ) from error
        raise StoreUnavailable(f"The database can't be used now: {error.orig}.") from error
    except (PoolTimeout, sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"The database can't be used now: {error}.") from error
