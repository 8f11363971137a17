"""Sessions of the console: in SQL, so that every gateway knows them and a restart ends none."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import StoreUnavailable
from rules_store.models.sessions import ConsoleSession
from rules_store.operations.context import StoreContext
from rules_store.repository import sessions

IDLE = timedelta(hours=2)
"""Without a request after which a session is over."""
LIFETIME = timedelta(hours=12)
"""After which it is over in any case."""
MOST_SESSIONS = 1000
TOUCHED_EVERY = timedelta(minutes=1)
"""So that reading pages writes little."""


class SessionOperations:
    """`store.sessions`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def start(self, digest: str, *, actor: str, key_id: str, key_proof: str) -> None:
        """A new one under the hash of its token. What has ended is removed, and beyond
        `MOST_SESSIONS` what was used least lately."""
        now = self._context.clock()
        session = ConsoleSession(digest, actor, key_id, key_proof, now, now, now + LIFETIME)

        async def start(connection: AsyncConnection) -> None:
            await sessions.remove_ended(connection, now, now - IDLE)
            await sessions.keep_latest(connection, MOST_SESSIONS - 1)
            await sessions.add(connection, session)

        await self._context.database.transact(start)

    async def find(self, digest: str) -> ConsoleSession | None:
        """The session, its idle time begun anew; None where it is over or never was."""
        now = self._context.clock()
        async with self._context.database.read() as connection:
            session = await sessions.find(connection, digest)
        if session is None or _ended(session, now):
            return None
        if now - session.seen_at > TOUCHED_EVERY:

            async def touch(connection: AsyncConnection) -> None:
                await sessions.touch(connection, digest, now)

            # A page can be read while nothing can be written.
            with suppress(StoreUnavailable):
                await self._context.database.transact(touch)
        return session

    async def end(self, digest: str) -> None:
        """Also of one that there is not."""

        async def end(connection: AsyncConnection) -> None:
            await sessions.remove(connection, digest)

        await self._context.database.transact(end)


def _ended(session: ConsoleSession, now: datetime) -> bool:
    return now >= session.expires_at or now - session.seen_at > IDLE
