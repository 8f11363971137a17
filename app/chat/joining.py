"""Retries of a request whose answer is still being worked on: they wait for that one.

A proxy gives up after a minute, its client asks again, and each retry that began anew would end
the same way. So an equal request of the same key joins the one that is under way. When everybody
who waited has gone, the work goes on for a while in case one comes back: for as long as it has been
at it, since what was waited for long is asked again (who leaves at once has pressed a button), and
never longer than the pool's limit. Nothing that nobody waits for is brought to its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from app.chat.call import Answer

Wanted = Callable[[], Awaitable[object]]
"""Returns while somebody waits for the answer, and waits for somebody otherwise."""

SOON = 1.0
"""Seconds of work that are little: it goes on for half a second at most."""
MOST_LEFT = 16
"""Answers that nobody waits for, being worked on at a time ..."""
MOST_LEFT_OF_ONE = 4
"""... and those of one key."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Work:
    owner: str
    started: float = field(default_factory=time.monotonic)
    waiting: int = 0
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Answer] | None = None
    end: asyncio.TimerHandle | None = None

    @property
    def left(self) -> bool:
        return self.end is not None


class JoinedRequests:
    """Work under way, by what makes two requests the same."""

    def __init__(self, longest: float) -> None:
        """`longest`: seconds for which work goes on that nobody waits for; 0: none."""
        self._longest = longest
        self._under_way: dict[str, _Work] = {}

    async def answer(
        self, request: str, owner: str, begin: Callable[[Wanted], Awaitable[Answer]]
    ) -> Answer:
        """The answer to `request`, which is begun unless it is under way. Whoever is cancelled here
        has gone. Raises what the work raises."""
        work = self._under_way.get(request)
        if work is None:
            work = self._begin(request, owner, begin)
        else:
            log.info("a retry joins the request under way", waiting=work.waiting)
        assert work.task is not None
        work.waiting += 1
        work.wanted.set()
        if work.end is not None:
            work.end.cancel()
            work.end = None
        try:
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if work.waiting == 0 and not work.task.done():
                self._leave(request, work)

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = [work.task for work in self._under_way.values() if work.task is not None]
        for request, work in list(self._under_way.items()):
            self._end(request, work)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(
        self, request: str, owner: str, begin: Callable[[Wanted], Awaitable[Answer]]
    ) -> _Work:
        work = _Work(owner)

        async def run() -> Answer:
            return await begin(work.wanted.wait)

        def done(task: asyncio.Task[Answer]) -> None:
            if self._under_way.get(request) is work:
                del self._under_way[request]
            if work.end is not None:
                work.end.cancel()
            if not task.cancelled():
                task.exception()  # seen, also where nobody waits for it any more

        work.task = asyncio.create_task(run())
        work.task.add_done_callback(done)
        self._under_way[request] = work
        return work

    def _leave(self, request: str, work: _Work) -> None:
        """Nobody waits for it now."""
        work.wanted.clear()
        worked = time.monotonic() - work.started
        seconds = min(self._longest, worked if worked >= SOON else min(worked, SOON / 2))
        left = [each for each in self._under_way.values() if each.left]
        own = sum(each.owner == work.owner for each in left)
        if seconds <= 0 or len(left) >= MOST_LEFT or own >= MOST_LEFT_OF_ONE:
            self._end(request, work)
            return
        loop = asyncio.get_running_loop()
        work.end = loop.call_later(seconds, self._end, request, work)

    def _end(self, request: str, work: _Work) -> None:
        # At once, so that nobody joins what is being cancelled.
        if self._under_way.get(request) is work:
            del self._under_way[request]
        if work.task is not None:
            work.task.cancel()
