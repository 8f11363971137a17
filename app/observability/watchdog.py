"""Tells of an event loop that stood still: nobody was answered meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from app.observability.metrics import Metrics

log = structlog.get_logger(__name__)

INTERVAL = 0.05
"""Seconds between looks; a pause is measured to this much."""
STOOD_STILL = 0.1
"""Seconds from which it is told."""


async def watch_loop(
    metrics: Metrics,
    *,
    clock: Callable[[], float] = time.monotonic,
    busy: Callable[[], float] = time.thread_time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Runs until cancelled. `busy`: seconds that this thread has had the processor; where they are
    few, it was the machine or its disk that stood still."""
    while True:
        began, worked = clock(), busy()
        await sleep(INTERVAL)
        late = clock() - began - INTERVAL
        if late >= STOOD_STILL:
            metrics.stood_still.observe(late)
            log.warning(
                "the event loop stood still",
                seconds=round(late, 3),
                processor_seconds=round(busy() - worked, 3),
            )
