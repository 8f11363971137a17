"""Answers that stop working for a client that has gone.

Starlette notices a closed connection only when it next writes. Here a listener waits for the
disconnect beside the work, so that the upstream's generation is aborted within a second even
while nothing is being written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.chat.call import Stream
from app.chat.service import CLIENT_GONE
from app.exceptions import ClientTooSlow, Overloaded, UpstreamError

T = TypeVar("T")

log = structlog.get_logger(__name__)

STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "Content-Type": "text/event-stream; charset=utf-8",
}


READ_SECONDS = 60.0
"""Within which a client must read on: what it leaves unread holds a place that others wait for."""
STOPPED = "gateway_stopped"
CLIENT_TOO_SLOW = "client_too_slow"
"""Why a stream has ended early, beside `CLIENT_GONE`."""


class ClientGone(Exception):
    """The client closed its connection; whatever worked for it has been cancelled."""


async def until_disconnect(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes. Raises `ClientGone`;
    `Overloaded` when the server stops and its grace is over.

    The request's body must have been read before.
    """
    mine = asyncio.current_task()
    assert mine is not None
    left = False

    def leave(listening: asyncio.Task[None]) -> None:
        nonlocal left
        if not listening.cancelled():
            left = True
            mine.cancel()

    gone = asyncio.create_task(_disconnected(request.receive))
    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if left:
            mine.uncancel()
            raise ClientGone from None
        # Nobody else but a stopping server cancels a request.
        raise Overloaded(STOPPING.message, code=STOPPING.code, retry_after=1) from None
    finally:
        gone.remove_done_callback(leave)
        gone.cancel()


STOPPING = Overloaded("The gateway is stopping", code="stopping", retry_after=1)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class LiveResponse(Response):
    """A body from a generator of bytes, closed at once when the client goes."""

    farewell: tuple[bytes, ...] = ()
    """What is sent last where the server stops before the body's end."""

    def __init__(
        self,
        stream: Stream,
        on_cut: Callable[[str], None] = lambda reason: None,
        *,
        status: int = 200,
    ) -> None:
        """`on_cut` is told why it ended before its end."""
        self.status_code = status
        self.background = None
        self._stream = stream
        self._on_cut = on_cut
        self.on_end: Callable[[], None] | None = None
        self.init_headers(stream.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.create_task(_disconnected(receive))
        cut: str | None = None
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            cut = _unread(writing) if writing.done() else CLIENT_GONE
        except asyncio.CancelledError:
            # The grace of a stopping server is over.
            cut = None if writing.done() else STOPPED
        finally:
            await _cancel(writing, gone)
            if cut is not None:
                self._on_cut(cut)
            if cut == STOPPED and self.farewell:
                await self._say_goodbye(send)
            try:
                await self._stream.close()
            finally:
                if self.on_end is not None:
                    self.on_end()
        if cut is None and not writing.cancelled() and writing.exception() is not None:
            self._fail(writing.exception())

    def _fail(self, error: BaseException | None) -> None:
        """The body ended with an error. Unless this raises it, the response stays without an end,
        and the server closes the connection: nobody takes it for whole."""
        if not isinstance(error, UpstreamError | ClientTooSlow):
            raise error  # type: ignore[misc]
        log.warning("an answer was cut", error=error.message)

    async def _say_goodbye(self, send: Send) -> None:
        for event in self.farewell:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        async for event in self._stream.events:
            async with _read_on():
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _unread(writing: asyncio.Future[None]) -> str | None:
    """Why writing is over before its end; None where it came to it, or failed by itself."""
    if writing.cancelled() or not isinstance(writing.exception(), ClientTooSlow):
        return None
    return CLIENT_TOO_SLOW


@asynccontextmanager
async def _read_on() -> AsyncIterator[None]:
    """Raises `ClientTooSlow`."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            yield
    except TimeoutError:
        raise ClientTooSlow("the client does not read its answer") from None


class EventStream(LiveResponse):
    """Server-sent events of a chat."""

    def __init__(
        self, stream: Stream, on_cut: Callable[[str], None], farewell: tuple[bytes, ...]
    ) -> None:
        super().__init__(stream, on_cut)
        self.farewell = farewell

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        own = {name.lower() for name in STREAM_HEADERS}
        kept = {name: value for name, value in (headers or {}).items() if name.lower() not in own}
        super().init_headers({**kept, **STREAM_HEADERS})
