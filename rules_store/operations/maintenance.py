"""Keeping up with other processes while nobody asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from rules_store.errors import StoreUnavailable
from rules_store.operations.context import StoreContext
from rules_store.operations.embedder import EmbedderOperations

logger = logging.getLogger(__name__)

_RECOUNT = 100
"""Looks until exposures are counted that another process may have left behind when it died."""
_PAUSE = 0.02
"""Seconds between two portions of exposures that are counted: requests that write wait for each."""
_TIDY = 10
"""Looks until the database is tidied up: the disk is slow for everybody meanwhile."""


async def watch(context: StoreContext, embedder: EmbedderOperations, interval: float) -> None:
    """Catches up when the database says that something is new, and every `interval` seconds,
    until cancelled; failures are logged."""
    failing = False
    looks = 0
    new = asyncio.Event()
    listener = asyncio.create_task(context.database.listen(new.set))
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await new.wait()
            new.clear()
            try:
                await context.caches.catch_up()
                looks += 1
                context.exposures.pending |= looks % _RECOUNT == 0
                await context.exposures.count(_PAUSE)
                if looks % _TIDY == 0:
                    await context.database.tidy()
                    await embedder.follow()
                failing = False
            except StoreUnavailable as error:
                if not failing:
                    logger.warning("the rule index can't keep up: %s", error)
                failing = True
    finally:
        listener.cancel()
