"""PostgreSQL: how its connections are opened, and how the pool notices that one has ended."""

from __future__ import annotations

import select
from typing import Any

from sqlalchemy import Engine, event
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
