"""Sessions of the console."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import console_sessions as sessions
from rules_store.models.sessions import ConsoleSession


async def add(connection: AsyncConnection, session: ConsoleSession) -> None:
    await connection.execute(insert(sessions).values(**asdict(session)))


async def find(connection: AsyncConnection, digest: str) -> ConsoleSession | None:
    row = (
        await connection.execute(select(sessions).where(sessions.c.hash == digest))
    ).one_or_none()
    return None if row is None else _session(row)


async def touch(connection: AsyncConnection, digest: str, at: datetime) -> None:
    await connection.execute(update(sessions).where(sessions.c.hash == digest).values(seen_at=at))


async def remove(connection: AsyncConnection, digest: str) -> None:
    await connection.execute(delete(sessions).where(sessions.c.hash == digest))


async def remove_ended(connection: AsyncConnection, now: datetime, idle_since: datetime) -> None:
    await connection.execute(
        delete(sessions).where(or_(sessions.c.expires_at <= now, sessions.c.seen_at < idle_since))
    )


async def keep_latest(connection: AsyncConnection, most: int) -> None:
    """Removes all but the `most` that were seen last."""
    too_many = select(sessions.c.hash).order_by(sessions.c.seen_at.desc()).offset(most)
    # SQLite knows no OFFSET without a LIMIT; the dialect writes one.
    gone = list(await connection.scalars(too_many))
    if gone:
        await connection.execute(delete(sessions).where(sessions.c.hash.in_(gone)))


def _session(row: Row[Any]) -> ConsoleSession:
    return ConsoleSession(**row._mapping)
