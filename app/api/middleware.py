"""Pure ASGI middleware (BaseHTTPMiddleware hides disconnects): request ids and body size."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import render
from app.exceptions import PayloadTooLarge
from app.ids import IdSource

REQUEST_ID = "x-request-id"
_ACCEPTABLE = re.compile(r"^[\x21-\x7e]{1,128}$")


class RequestId:
    """Echoes the client's `X-Request-ID`, or makes one; both are in `scope["state"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._new_id = IdSource()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID)
        accepted = given if given and _ACCEPTABLE.match(given) else None
        request_id = accepted or f"req_{self._new_id()}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["client_request_id"] = accepted

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


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
