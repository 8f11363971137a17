"""How connections are read: uvicorn's protocol, less what it lets a client do without a key."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_SECONDS = 20.0
"""Within which a request's headers must have come, and what is left of a body that nobody reads."""


class GatewayProtocol(HttpToolsProtocol):
    """Closes a connection whose headers don't come, and takes no headers from behind a body: what
    stands there was not there when the key was looked at."""

    headers_seconds = HEADERS_SECONDS
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._give_up_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._give_up_later()

    def on_header(self, name: bytes, value: bytes) -> None:
        if "method" not in self.scope:  # set once all headers are there
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._go_on()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._give_up_later()

    def on_message_complete(self) -> None:
        self._go_on()
        super().on_message_complete()

    def _give_up_later(self) -> None:
        self._go_on()
        self._deadline = self.loop.call_later(self.headers_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _go_on(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
