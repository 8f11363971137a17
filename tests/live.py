"""An ASGI app behind a real TCP port of this process: uvicorn in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import uvicorn

from app.cli.http_protocol import GatewayProtocol

Address = tuple[str, int]


class LiveServer:
    """Serves `app` on 127.0.0.1. The port is chosen at the first start and kept over restarts."""

    def __init__(self, app: Any, *, lifespan: str = "off") -> None:
        self._app = app
        self._lifespan = lifespan
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._transports: dict[Address, asyncio.Transport] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Returns when the port answers; raises RuntimeError when the app's start-up failed."""
        # The protocol is named because asyncio sets TCP_NODELAY only where it is: without it, every
        # answer on a kept connection waits 40 ms for a delayed acknowledgement.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self._port))
        self._port = sock.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http=_recording_protocol(self._transports),
            loop="asyncio",
            lifespan=self._lifespan,  # type: ignore[arg-type]
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the server did not start; its log says why")
            time.sleep(0.005)

    def stop(self) -> None:
        """Closes the port and every connection. Twice is harmless."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        # uvicorn skips the application's shutdown when forced, so only a bare app is forced.
        self._server.force_exit = self._lifespan == "off"
        self._thread.join(timeout=30)
        self._server = self._thread = None

    def drop(self, client: Address) -> None:
        """Resets the connection to `client` at once, whatever was being sent."""
        transport = self._transports.get(tuple(client))  # type: ignore[arg-type]
        if transport is not None:
            transport.abort()


def _recording_protocol(transports: dict[Address, asyncio.Transport]) -> type[GatewayProtocol]:
    class Recording(GatewayProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if self.client is not None:
                transports[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                transports.pop(self.client, None)
            super().connection_lost(exc)

    return Recording
