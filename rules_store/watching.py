"""Keeping up with other processes while nobody asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from rules_store.core import StoreCore
from rules_store.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_LOOKS = 100


class Watching(StoreCore):
    async def watch(self, interval: float) -> None:
        """Calls `catch_up` when the database says that something is new, and every `interval`
        seconds, until cancelled; failures are logged."""
        failing = False
        looks = 0
        new = asyncio.Event()
        listener = asyncio.create_task(self._database.listen(new.set))
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await new.wait()
                new.clear()
                try:
                    await self.catch_up()
                    looks += 1
                    # Now and then for those of a process that has died.
                    self._uncounted = self._uncounted or looks % _LOOKS == 0
                    await self._count_exposures()
                    await self._database.tidy()
                    failing = False
                except StoreUnavailable as error:
                    if not failing:
                        logger.warning("the rule index can't keep up: %s", error)
                    failing = True
        finally:
            listener.cancel()
