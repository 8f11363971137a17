"""Retries of a request whose answer is still being worked on: they wait for that one.

A proxy gives up after a minute, its client asks again, and each retry that began anew would end
the same way. So a retry joins the request of the same key that is under way: one that says that it
is a retry, one whose like nobody waits for any more, and one that comes when its like has been
worked on for a while. Two that come together are two requests.

When everybody who waited has gone, the work goes on for a while in case one comes back: for as long
as it has been at it, since what was waited for long is asked again (who leaves at once has pressed
a button), and never longer than the pool's limit. Nothing that nobody waits for is brought to its
end.
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

AGAIN = 2.0
"""Seconds of work after which an equal request is taken for a retry, whatever it says."""
SOON = 1.0
"""Seconds of work that are little: it goes on for a quarter of a second at most."""
MOST_LEFT = 16
"""Answers that nobody waits for, being worked on at a time ..."""
MOST_LEFT_OF_ONE = 4
"""... and those of one key."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Work:
    request: str
    owner: str
    started: float = field(default_factory=time.monotonic)
    waiting: int = 0
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Answer] | None = None
    end: asyncio.TimerHandle | None = None
    """Of what nobody waits for."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class JoinedRequests:
    """Work under way, by what makes two requests the same."""

    def __init__(self, longest: float) -> None:
        """`longest`: seconds for which work goes on that nobody waits for; 0: none."""
        self._longest = longest
        self._under_way: list[_Work] = []

    async def answer(
        self,
        request: str,
        owner: str,
        begin: Callable[[Wanted], Awaitable[Answer]],
        *,
        is_retry: bool = False,
    ) -> Answer:
        """The answer to `request`, which is begun unless it joins one that is under way. Whoever is
        cancelled here has gone. Raises what the work raises."""
        work = self._joinable(request, is_retry) or self._begin(request, owner, begin)
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
                self._leave(work)

    async def close(self) -> None:
        """Ends what is under way."""
        works = list(self._under_way)
        for work in works:
            self._end(work)
        tasks = [work.task for work in works if work.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _joinable(self, request: str, is_retry: bool) -> _Work | None:
        for work in self._under_way:
            again = is_retry or work.waiting == 0 or work.seconds >= AGAIN
            if work.request == request and again:
                log.info("a retry joins the request under way", waiting=work.waiting)
                return work
        return None

    def _begin(
        self, request: str, owner: str, begin: Callable[[Wanted], Awaitable[Answer]]
    ) -> _Work:
        work = _Work(request, owner)

        async def run() -> Answer:
            return await begin(work.wanted.wait)

        def done(task: asyncio.Task[Answer]) -> None:
            self._forget(work)
            if work.end is not None:
                work.end.cancel()
            if not task.cancelled():
                task.exception()  # seen, also where nobody waits for it any more

        work.task = asyncio.create_task(run())
        work.task.add_done_callback(done)
        self._under_way.append(work)
        return work

    def _leave(self, work: _Work) -> None:
        """Nobody waits for it now."""
        work.wanted.clear()
        worked = work.seconds
        seconds = min(self._longest, worked if worked >= SOON else min(worked, SOON / 4))
        left = [each for each in self._under_way if each.end is not None]
        own = sum(each.owner == work.owner for each in left)
        if seconds <= 0 or len(left) >= MOST_LEFT or own >= MOST_LEFT_OF_ONE:
            self._end(work)
            return
        work.end = asyncio.get_running_loop().call_later(seconds, self._end, work)

    def _end(self, work: _Work) -> None:
        self._forget(work)  # at once, so that nobody joins what is being cancelled
        if work.task is not None:
            work.task.cancel()

    def _forget(self, work: _Work) -> None:
        if work in self._under_way:
            self._under_way.remove(work)
