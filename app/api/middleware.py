"""Pure ASGI middleware (BaseHTTPMiddleware hides disconnects): request ids, traces, other
origins and HEAD. Keys and bodies: `app.api.entrance`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.api.access_log import refused
from app.observability.tracing import Tracer, set_attributes, set_failed, trace_id
from app.upstream.headers import OWN_REQUEST_ID, REQUEST_ID

EXPOSED = (
    "X-TTCL-Mode",
    "X-TTCL-Episode",
    "X-TTCL-Rules",
    "X-TTCL-Arm",
    "X-TTCL-Degraded",
    REQUEST_ID,
    OWN_REQUEST_ID,
    "Retry-After",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
)
"""Headers that a page's script may read."""
ASKED_METHOD = "ttcl.asked_method"
"""In the scope of a HEAD request that is answered as GET."""
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
                if message["status"] >= 400:
                    refused(scope, message["status"])
                headers = MutableHeaders(scope=message)
                # That of the model server, whose answer it is, is what its people ask for.
                headers[OWN_REQUEST_ID if REQUEST_ID in headers else REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class Traces:
    """A span around a request to one of these paths, to the end of its stream. Only where there are
    traces."""

    def __init__(self, app: ASGIApp, tracer: Tracer, paths: Sequence[str]) -> None:
        self.app = app
        self._tracer = tracer
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self.app(scope, receive, send)
            return
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        name = f"{method} {path}"
        with self._tracer.request(name, headers, method=method, route=path) as span:
            set_attributes(span, request_id=scope["state"]["request_id"])
            bind_contextvars(trace_id=trace_id(span))

            async def send_and_tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    set_attributes(span, status=message["status"])
                    if message["status"] >= 500:
                        set_failed(span, str(message["status"]))
                await send(message)

            await self.app(scope, receive, send_and_tell)


class Head:
    """Answers HEAD wherever GET is answered, as GET does, without the body. What is passed through
    is the model server's to answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        asked = {**scope, "method": "GET", ASKED_METHOD: "HEAD"}
        await self.app(asked, receive, send_without_body)


class CrossOrigin:
    """Lets pages of these origins ask from a browser what clients may ask. The admin API and the
    console are for no other page than their own."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        closed = scope["type"] != "http" or scope["path"].startswith(("/admin", "/console"))
        await (self.app if closed else self._open)(scope, receive, send)
