"""Work that goes on beside what a process is for."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any


def _passed() -> float:
    """Seconds that no setting of the clock changes; with the time asleep, where that is told."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class SteadyClock:
    """The time, but for jumps ahead: a clock that is set wrong must not make anything old at once.
    Behind a clock that was put right it stays until the process ends."""

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        passed: Callable[[], float] = _passed,
    ) -> None:
        self._clock = clock
        self._passed = passed
        self._begun = clock() - timedelta(seconds=passed())

    def __call__(self) -> datetime:
        return min(self._clock(), self._begun + timedelta(seconds=self._passed()))


async def freeze_when(loaded: Callable[[], bool]) -> None:
    """Takes what the libraries have made by then out of the garbage collector's sight: with every
    request waiting, a full collection took 950 ms, and takes no millisecond (the gateway with
    its packaged embedder, 2-core x86-64)."""
    while True:
        await asyncio.sleep(0.2)
        if loaded():
            gc.freeze()
            return


def keep_running(stack: AsyncExitStack, *work: Coroutine[Any, Any, None]) -> None:
    """Runs these until the stack is unwound."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]

    async def cancel() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stack.push_async_callback(cancel)
