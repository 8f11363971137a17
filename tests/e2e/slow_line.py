"""A TCP line to a server whose delay can be changed while it is in use."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.engine.address import free_port


class SlowLine:
    """What the server says arrives `delay` seconds after it."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.delay = 0.0
        self._target = target
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wait(self) -> None:
        assert self._ready.wait(10)

    def end(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, on = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink, slow in ((near, on, False), (far, back, True)):
            task = asyncio.create_task(self._pump(source, sink, slow))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, slow: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                waited = 0.0
                # Looked at again and again: what is on its way speeds up with the line.
                while slow and waited < self.delay:
                    await asyncio.sleep(0.01)
                    waited += 0.01
                sink.write(data)
                await sink.drain()
        sink.close()


@contextmanager
def slow_line(target: int) -> Iterator[SlowLine]:
    line = SlowLine(target)
    thread = threading.Thread(target=lambda: asyncio.run(line.serve()), daemon=True)
    thread.start()
    line.wait()
    try:
        yield line
    finally:
        line.end()
        thread.join(10)
