"""How connections are read: uvicorn's protocol, less what it lets a client do without a key, and
with what it can't do.

Two kinds of requests go to uvicorn's other protocol, which costs too much for all of them. HTTP/1.0
knows no chunks, in which httptools' protocol sends every body of unknown length. And of a request
that offers another protocol (`Upgrade: h2c`, as the JDK's client does), httptools reads no body,
though nobody takes up the offer.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_SECONDS = 20.0
"""Within which a request's headers must have come, and what is left of a body that nobody reads."""


_OF_THE_CONNECTION = (b"connection", b"upgrade", b"keep-alive", b"http2-settings")


class GatewayProtocol(HttpToolsProtocol):
    """Closes a connection whose headers don't come, and takes no headers from behind a body: what
    stands there was not there when the key was looked at."""

    headers_seconds = HEADERS_SECONDS
    _deadline: asyncio.TimerHandle | None = None
    _successor: H11Protocol | None = None
    """Whose the connection is from now on."""
    _over: bool = False
    """Whether nothing more is read: the connection ends with the answers under way."""

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

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._over and self._successor is None:
                self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._successor is not None and rest:
                self._successor.data_received(rest)
            elif self._successor is None and not self._over:
                self.handle_websocket_upgrade()
        if self._successor is not None:
            self.transport.set_protocol(self._successor)

    def on_headers_complete(self) -> None:
        self._go_on()
        if self._over or self._successor is not None:
            return
        offers = self.parser.should_upgrade() and not self._should_upgrade()
        if self.parser.get_method() == b"CONNECT" or not (
            offers or self.parser.get_http_version() == "1.0"
        ):
            super().on_headers_complete()
        elif self.cycle is None or self.cycle.response_complete:
            self._hand_over()
        else:
            # Sent behind a request whose answer is not out yet: it is not read, as is allowed.
            self._over = True
            self.cycle.keep_alive = False
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._successor is not None:
            self._successor.data_received(body)
        elif not self._over:
            super().on_body(body)

    def _hand_over(self) -> None:
        """To the other protocol, for this one request: it reads the head anew, and the body as it
        comes."""
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name not in _OF_THE_CONNECTION:
                head += [name, b": ", value, b"\r\n"]
        head.append(b"connection: close\r\n\r\n")
        self.connections.discard(self)
        self._successor = H11Protocol(self.config, self.server_state, self.app_state)
        self._successor.connection_made(self.transport)
        self._successor.data_received(b"".join(head))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._give_up_later()

    def on_message_complete(self) -> None:
        self._go_on()
        if self._successor is None and not self._over:
            super().on_message_complete()

    def _give_up_later(self) -> None:
        self._go_on()
        if self._successor is not None:
            return
        self._deadline = self.loop.call_later(self.headers_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _go_on(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
