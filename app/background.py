"""Work that goes on beside what a process is for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any


def keep_running(stack: AsyncExitStack, *work: Coroutine[Any, Any, None]) -> None:
    """Runs these until the stack is unwound."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]

    async def cancel() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stack.push_async_callback(cancel)
