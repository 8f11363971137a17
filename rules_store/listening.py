"""Hearing of what other processes write: PostgreSQL's LISTEN, with polling as the fallback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy import URL

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
