"""Every other inference path of the model server: what the client sends goes there as it is, and
what comes back is the answer, in whatever format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable

import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.access.callers import Caller
from app.access.metering import Charge
from app.api.access_log import AccessEntry
from app.api.dependencies import Client, State
from app.api.middleware import ASKED_METHOD
from app.api.streaming import ClientGone, LiveResponse, until_disconnect
from app.chat.call import Stream
from app.exceptions import ConfigurationError, NotFound, TTCLError
from app.observability.tracing import traced
from app.upstream.headers import to_client, to_upstream
from app.upstream.paths import BENEATH, PASSED, acceptable, counted
from app.upstream.transport import UpstreamResponse
from app.upstream.usage import UsageReader
from app.wiring.container import AppState

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
MODE = "passed"
"""Of these requests in the metrics."""
CLIENT_CLOSED_REQUEST = 499

log = structlog.get_logger(__name__)


def passing(more: Iterable[str]) -> APIRouter:
    """Routes of all paths that are passed through, these `more` among them. They are the model
    server's, so our document does not describe them. Raises `ConfigurationError`."""
    router = APIRouter(include_in_schema=False)
    for path in (*PASSED, *more):
        if not acceptable(path.removesuffix(BENEATH) or "/") or path == BENEATH:
            raise ConfigurationError(
                f"TTCL_PASS_PATHS: {path} is no path, or one that manages the model server; such "
                "are never passed through"
            )
        shown = path.removesuffix(BENEATH) + "/{rest:path}" if path.endswith(BENEATH) else path
        router.add_api_route(shown, pass_through, methods=METHODS, response_model=None)
    return router


async def pass_through(request: Request, state: State, caller: Client) -> Response:
    """Counts against the key's rate, and where the model works now against its budget. Raises
    `NotFound`, `TooManyRequests`, `Overloaded`, `UpstreamError`."""
    path = request.scope["path"]
    if not acceptable(path):
        raise NotFound(f"Unknown path: {request.method} {path}")
    access = AccessEntry(request.scope)
    body = await request.body()
    status = 500
    leave: Callable[[], None] | None = None
    try:
        leave = state.load.enter(caller.name)
        allowance = state.meter.admit(caller)
        response = await passed(request, body, state, caller)
        status = response.status_code
        if isinstance(response, LiveResponse):
            response.on_end, leave = access.ends_with(leave), None
        if allowance is not None:
            response.headers.update(allowance.headers())
        return response
    except TTCLError as error:
        status, access.error = error.status, error
        raise
    finally:
        if leave is not None:
            leave()
        state.metrics.requests.labels(MODE, str(status)).inc()
        access.answered(MODE, status)


async def passed(request: Request, body: bytes, state: AppState, caller: Caller) -> Response:
    """The model server's answer to a request with this body, as it comes. Raises
    `UpstreamError`."""
    bill = _Bill(request, body, Charge(state.meter, caller))
    method = request.scope.get(ASKED_METHOD, request.method)
    query = request.scope["query_string"].decode("latin-1")
    target = request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    try:
        answer = await until_disconnect(
            request, state.upstream.forward(method, target, body, sent_headers(request))
        )
    except ClientGone:
        # The model was at work, and how much it made nobody will tell.
        bill.pay(whole=False)
        log.info("client gone")
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    bill.answered(answer)
    response = LiveResponse(_relayed(answer, bill), status=answer.status)
    response.raw_headers = [
        (name.encode("latin-1", "replace"), value.encode("utf-8", "surrogateescape"))
        for name, value in to_client(answer.headers, whole=True)
    ]
    return response


def sent_headers(request: Request) -> dict[str, str]:
    return to_upstream(request.headers.items(), request.state.request_id, traced=traced())


class _Bill:
    """What one request owes, for whoever is charged at all."""

    def __init__(self, request: Request, body: bytes, charge: Charge) -> None:
        self._body = body
        self._charge = charge
        self._open = charge.open and counted(request.method, request.scope["path"])
        self._reader = UsageReader()

    def answered(self, answer: UpstreamResponse) -> None:
        self._open = self._open and answer.status < 400
        self._reader = UsageReader(answer.content_type)

    def read(self, chunk: bytes) -> None:
        if self._open:
            self._reader.read(chunk)

    def pay(self, *, whole: bool) -> None:
        if self._open:
            self._open = False
            self._charge.pay(self._reader.cost(self._body, whole=whole))


def _relayed(answer: UpstreamResponse, bill: _Bill) -> Stream:
    async def chunks() -> AsyncGenerator[bytes]:
        async for chunk in answer.chunks():
            bill.read(chunk)
            yield chunk
        bill.pay(whole=True)

    events = chunks()

    async def close() -> None:
        await events.aclose()
        bill.pay(whole=False)
        answer.close()

    return Stream(events, {}, close)
