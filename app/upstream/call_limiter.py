"""Keeps learning from competing with answers.

A background call starts only while no client waits for an answer, or after it has waited its
turn: under constant load learning goes on, slowly, instead of starving.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CallLimiter:
    """`limit`: most background calls at a time. `patience`: seconds that one waits for quiet."""

    def __init__(self, limit: int, patience: float = 5.0) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._patience = patience
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.foreground_calls = 0
        self.background_calls = 0

    @asynccontextmanager
    async def foreground(self) -> AsyncIterator[None]:
        self.foreground_calls += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self.foreground_calls -= 1
            if self.foreground_calls == 0:
                self._quiet.set()

    @asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        async with self._slots:
            try:
                async with asyncio.timeout(self._patience):
                    await self._quiet.wait()
            except TimeoutError:
                pass
            self.background_calls += 1
            try:
                yield
            finally:
                self.background_calls -= 1
