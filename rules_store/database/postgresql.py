"""PostgreSQL: connections and transactions, how the pool notices that one has ended, and how it
is heard of what other processes write (LISTEN, with polling as the fallback)."""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, event, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.interface import Work, new_engine, pool_options, translated
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHANNEL = "ttcl_events"
_EVENT_LOCK = 0x7474636C  # an advisory lock: 'ttcl'
_OURS = "ttcl schema "
"""How a process that has the database open names itself to the server, with the schema it needs."""
_OPEN = text(
    "SELECT application_name, client_addr, pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    f" AND (application_name = 'ttcl' OR application_name LIKE '{_OURS}%')"
)
_ALONE_LOCK = 0x74746370
_TRY_ALONE = text(f"SELECT pg_try_advisory_lock({_ALONE_LOCK})")
_TAKE_TURN = text(f"SELECT pg_advisory_xact_lock({_EVENT_LOCK}), pg_notify('{_CHANNEL}', '')")
_PAUSE = 2.0  # seconds before another try at a connection
_ALIVE = 30.0  # seconds of silence after which the connection is tried


class PostgresDatabase:
    """One pool of connections; statements wait `busy_timeout` seconds for a lock."""

    def __init__(self, url: URL, options: StoreOptions, *, read_only: bool = False) -> None:
        self.url = url
        self._options = options
        self._writes = new_engine(
            url, connect_args=connect_arguments(options), **pool_options(options)
        )
        notice_ended_connections(self._writes.sync_engine)
        prepare_nothing_behind_a_pooler(self._writes.sync_engine)
        self._reads = self._writes.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=read_only
        )

    def check_there(self) -> None:
        """The server itself will tell."""

    async def prepare(self) -> None:
        """The server is there."""

    async def close(self) -> None:
        await self._writes.dispose()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        # Of the session: no transaction stays open for it.
        with translated():
            autocommit = self._writes.execution_options(isolation_level="AUTOCOMMIT")
            async with autocommit.connect() as connection:
                if not await connection.scalar(_TRY_ALONE):
                    raise StoreUnavailable("Another process is copying into this database.")
                try:
                    yield
                finally:
                    # Back in the pool the connection would keep it.
                    await connection.invalidate()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with translated():
            async with self._reads.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        with translated():
            async with self._writes.begin() as connection:
                yield connection

    async def transact(
        self, work: Work[T], *, at_request_start: bool = False, at_request_end: bool = False
    ) -> T:
        """Where somebody waits for it, a server that does not answer in time is given up."""
        if not (at_request_start or at_request_end):
            return await self._transact(work)
        task = asyncio.create_task(self._transact(work))
        options = self._options
        try:
            await asyncio.wait(
                [task], timeout=options.begin_timeout if at_request_start else options.busy_timeout
            )
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            # Not awaited: a server that hangs does not answer a cancellation either.
            task.cancel()
            raise StoreUnavailable("The database does not answer in time.")
        return task.result()

    async def _transact(self, work: Work[T]) -> T:
        async with self.write() as connection:
            return await work(connection)

    async def order_events(self, connection: AsyncConnection, *, patiently: bool = False) -> None:
        """Writers of events queue on an advisory lock; their commit wakes who listens."""
        if patiently:
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
        await connection.execute(_TAKE_TURN)

    async def older_processes(self, connection: AsyncConnection) -> list[str]:
        """By the names of their connections; the first versions gave them no schema."""
        found = (await connection.execute(_OPEN)).all()
        return [
            f"process {pid} of the server, from {address or 'here'}"
            for name, address, pid in found
            if name.removeprefix(_OURS) < schema_needed() or name == "ttcl"
        ]

    async def listen(self, heard: Callable[[], None]) -> None:
        await listen(self.url, heard)

    async def tidy(self) -> None:
        """The server does it by itself."""


@cache
def schema_needed() -> str:
    """The newest revision that there is a migration to, by the names of their files."""
    versions = Path(__file__).parents[1] / "migrations" / "versions"
    return max(path.name[1:5] for path in versions.glob("v*.py"))


def connect_arguments(options: StoreOptions) -> dict[str, Any]:
    """What psycopg is given: nothing waits for a lock, or for a server that is gone, for long."""
    return {
        "application_name": f"{_OURS}{schema_needed()}",
        "connect_timeout": max(2, round(options.busy_timeout)),  # libpq takes less for 2
        "tcp_user_timeout": 10_000,
        "options": f"-c lock_timeout={round(options.busy_timeout * 1000)}",
        # Statements are prepared by the server when they come again.
        "prepare_threshold": 2,
    }


def notice_ended_connections(engine: Engine) -> None:
    """A server that was started anew leaves dead connections in the pool.

    SQLAlchemy's `pool_pre_ping` finds them with a transaction of its own before each of ours, so
    with as many again. A server that has closed a connection has told so: asking the socket is
    enough, and free.
    """

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, proxy: Any) -> None:
        if _has_ended(record.driver_connection.pgconn):
            raise InvalidatePoolError()


def prepare_nothing_behind_a_pooler(engine: Engine) -> None:
    """A pooler such as pgbouncer may hand each transaction to another session of the server, and a
    statement that was prepared in one is unknown, or another one, in the next. It shows by the
    number of the server's process: a pooler gives its clients numbers of its own. Notices don't
    come through it either; polling goes on without them."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        driver = connection.driver_connection
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        (serving,) = cursor.fetchone()
        cursor.close()
        connection.rollback()
        if is_pooled(driver.info.backend_pid, serving):
            driver.prepare_threshold = None


def is_pooled(told: int, serving: int) -> bool:
    """Whether the process that serves is another one than the connection was told of."""
    return told != serving


def _has_ended(pgconn: Any) -> bool:
    import psycopg

    poll = select.poll()
    try:
        poll.register(pgconn.socket, select.POLLIN)
        while poll.poll(0):
            # A notice, or the end: behind the last words of a server that stops comes its hang-up.
            pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return bool(pgconn.status != psycopg.pq.ConnStatus.OK)


def libpq_address(url: URL) -> str:
    """The URL as PostgreSQL's own library reads it, with the password."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


async def listen(url: URL, heard: Callable[[], None]) -> None:
    """Calls `heard` for every transaction that wrote events, and after each gap in which one may
    have been missed. Until cancelled; whoever calls this polls as well."""
    import psycopg

    address = libpq_address(url)
    told = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                address, autocommit=True, connect_timeout=5, application_name="ttcl listener"
            ) as connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                told = False
                while True:
                    heard()
                    await anext(connection.notifies(timeout=_ALIVE, stop_after=1), None)
                    await connection.execute("SELECT 1")
        except (psycopg.Error, OSError) as error:
            if not told:
                logger.warning("not told of changes, polling alone: %s", error)
            told = True
            await asyncio.sleep(_PAUSE)
