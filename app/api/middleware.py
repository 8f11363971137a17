"""Pure ASGI middleware (BaseHTTPMiddleware hides disconnects): request ids, traces, body size."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.api.errors import render
from app.exceptions import PayloadTooLarge
from app.observability.tracing import Tracer, set_attributes, set_failed, trace_id

REQUEST_ID = "x-request-id"
_ACCEPTABLE = re.compile(r"^[\x21-\x7e]{1,128}$")


class RequestId:
    """Echoes the client's `X-Request-ID`, or makes one; both are in `scope["state"]`, and the id in
    every log line of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID)
        accepted = given if given and _ACCEPTABLE.match(given) else None
        request_id = accepted or f"req_{secrets.token_hex(16)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["client_request_id"] = accepted
        # Cleared at the beginning, not the end: a request that was sent behind another one inherits
        # that one's context, and what fails outside of this still has its id.
        clear_contextvars()
        bind_contextvars(request_id=request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class Traces:
    """A span around a chat request, to the end of its stream. Only where there are traces."""

    def __init__(self, app: ASGIApp, tracer: Tracer, path: str) -> None:
        self.app = app
        self._tracer = tracer
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            await self.app(scope, receive, send)
            return
        method, headers = scope["method"], Headers(scope=scope)
        name = f"{method} {self._path}"
        with self._tracer.request(name, headers, method=method, route=self._path) as span:
            set_attributes(span, request_id=scope["state"]["request_id"])
            bind_contextvars(trace_id=trace_id(span))

            async def send_and_tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    set_attributes(span, status=message["status"])
                    if message["status"] >= 500:
                        set_failed(span, str(message["status"]))
                await send(message)

            await self.app(scope, receive, send_and_tell)


class BodyLimit:
    """Refuses a body above `limit` bytes with 413, by its declared and by its real length."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self.limit:
            await self._refuse(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.limit:
                    raise PayloadTooLarge(f"The body is larger than {self.limit} bytes")
            return message

        await self.app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = PayloadTooLarge(f"The body is larger than {self.limit} bytes")
        await render(error)(scope, receive, send)
