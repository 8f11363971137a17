"""PostgreSQL: how its connections are opened, how the pool notices that one has ended, and how what
other processes write is heard of (LISTEN, with polling as the fallback)."""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import InvalidatePoolError

from rules_store.options import StoreOptions


def connect_arguments(options: StoreOptions) -> dict[str, Any]:
    """What psycopg is given: nothing waits for a lock, or for a server that is gone, for long."""
    return {
        "application_name": "ttcl",
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


logger = logging.getLogger(__name__)


CHANNEL = "ttcl_events"


_PAUSE = 2.0  # seconds before another try at a connection


_ALIVE = 30.0  # seconds of silence after which the connection is tried


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
                await connection.execute(f"LISTEN {CHANNEL}")
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
