"""Episodes are kept as long as their namespace says."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.operations.base import StoreCore
from rules_store.repository import episodes, events

_AT_ONCE = 500  # so that no write waits long for one of these


class RetentionOperations(StoreCore):
    async def expire_episodes(self, now: datetime | None = None) -> int:
        """Deletes questions, answers and traces that are older than their namespace keeps them;
        how many. Those whose learning is still to be done are spared. Each transaction of some
        hundreds writes an event. `now`: where it is earlier than the clock says."""
        total = 0
        clock = self._clock()
        now = clock if now is None else min(now, clock)
        for name, namespace in list(self._namespaces.items()):
            days = namespace.settings.retention_days
            while days is not None:
                gone = await self._expire(name, days, now)
                total += gone
                if gone < _AT_ONCE:
                    break
        return total

    async def _expire(self, name: str, days: int, now: datetime) -> int:
        async def expire(connection: AsyncConnection) -> int:
            # First, as every writer of events does: one who has that turn may wait for episodes.
            await self._database.order_events(connection)
            old = await episodes.expired(connection, name, now - timedelta(days=days), _AT_ONCE)
            if old:
                await episodes.remove(connection, old)
                await events.append(
                    connection,
                    now,
                    name,
                    "episodes.expired",
                    actor=events.POLICY,
                    reason=f"older than {days} days",
                    after={"episodes": len(old)},
                )
            return len(old)

        return await self._database.transact(expire)
