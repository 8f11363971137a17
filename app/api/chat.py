"""`POST /v1/chat/completions`."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from app.access.callers import Caller
from app.api.access_log import AccessEntry
from app.api.dependencies import (
    Client,
    State,
    app_state,
    client,
    namespace_forbidden,
    unknown_namespace,
)
from app.api.passthrough import sent_headers
from app.api.schemas.common import STREAMED, TOLD_HEADERS, ChatCompletion, Responses, refuses
from app.api.streaming import ClientGone, EventStream, until_disconnect
from app.chat.call import ChatCall, Stream
from app.chat.request import (
    TTCLOptions,
    parse_chat,
    parse_json,
    parse_options,
    split_model,
    unread_chat,
)
from app.domain.trajectory import Mode
from app.exceptions import InvalidRequest, TTCLError, UpstreamError
from app.observability.tracing import current, set_attributes
from app.settings import NAMESPACE
from app.upstream.transport import forwarded_headers, forwarded_query
from app.wiring.container import AppState
from rules_store.models.keys import Permission
from rules_store.models.namespaces import MOST_EXAMPLES


class ChatRoute(APIRoute):
    """Calls the endpoint with what its parameters stand for. FastAPI's way to find that out costs
    as much as looking up the rules."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            state = await app_state(request)
            return await chat_completions(request, state, await client(request, state))

        return handle


router = APIRouter(tags=["chat"], route_class=ChatRoute)
log = structlog.get_logger(__name__)

PATH = "/v1/chat/completions"
MODE_HEADER = "x-ttcl-mode"
NAMESPACE_HEADER = "x-ttcl-namespace"
EXAMPLES_HEADER = "x-ttcl-max-examples"
CLIENT_CLOSED_REQUEST = 499

_JSON = "application/json"
BODY_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
    }
}
_EVENTS = {
    "itemSchema": {"type": "object", "properties": {"data": {"type": "string"}}},
    "example": STREAMED,
}
ANSWER: Responses = {
    200: {
        "model": ChatCompletion,
        "description": "The answer",
        "content": {"text/event-stream": _EVENTS},
        "headers": {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in TOLD_HEADERS.items()
        },
    },
    **refuses(404, 429, 502, 504),
    "4XX": {},
}


@router.post(
    PATH,
    summary="Answer a chat request, steered by the rules and examples that fit it",
    openapi_extra=BODY_SCHEMA,
    responses=ANSWER,
    response_model=None,
)
async def chat_completions(request: Request, state: State, caller: Client) -> Response:
    access = AccessEntry(PATH)
    # The mark is of the text's encoding, no part of the text.
    raw = (await request.body()).removeprefix(codecs.BOM_UTF8)
    mode = "unknown"
    status = 500
    forwarded_headers.set(_sent_headers(request))
    forwarded_query.set(request.scope["query_string"].decode("latin-1"))
    leave: Callable[[], None] | None = None
    try:
        state.load.enter()
        leave = state.load.leave
        allowance = state.meter.admit(caller)
        call = await _call(request, raw, state, caller)
        mode = call.mode.value
        access.of(call)
        _name(call)
        response = await _respond(request, call, state)
        status = response.status_code
        if isinstance(response, EventStream):
            # Under way until its end.
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
        state.metrics.requests.labels(mode, str(status)).inc()
        state.metrics.seconds.labels(mode).observe(access.seconds)
        access.answered(mode, status)


async def _respond(request: Request, call: ChatCall, state: AppState) -> Response:
    try:
        answer, cut = await until_disconnect(request, state.service.answer(call))
    except ClientGone:
        log.info("client gone")
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(answer, Stream):
        return EventStream(answer, cut)
    headers = {"Content-Type": _JSON, **answer.headers}
    return Response(answer.content, answer.status, headers)


async def _call(request: Request, raw: bytes, state: AppState, caller: Caller) -> ChatCall:
    """Everything that a request says about itself. Body beats header beats name beats default."""
    default = _header_mode(request) or state.settings.mode
    body = _body(raw, default)
    options = parse_options(body)
    asked = body.get("model")
    base, named_mode = await _split(asked, state) if isinstance(asked, str) else ("", None)
    mode = options.mode or _header_mode(request) or named_mode or state.settings.mode
    unread: tuple[str, ...] = ()
    if mode is Mode.OFF:
        model = state.upstream.unlisted(base)
        parsed = unread_chat(base, stream=bool(body.get("stream")))
    else:
        parsed, unread = parse_chat(body)
        model = await state.upstream.resolve_model(base)
    namespace = _namespace(request, options, state, caller)
    if mode is not Mode.OFF:
        await _known(state, caller, namespace)
    given = options.max_examples
    limits = state.settings.limits(
        state.store.namespaces.settings_of(namespace),
        positive=options.max_positive,
        negative=options.max_negative,
        examples=_header_examples(request) if given is None else given,
    )
    renamed = isinstance(asked, str) and model.id != asked
    sent = {key: value for key, value in body.items() if key != "ttcl"}
    if renamed:
        sent["model"] = model.id
    return ChatCall(
        caller=caller,
        request=parsed,
        options=options,
        unread=unread,
        body=sent,
        raw=raw,
        verbatim="ttcl" not in body and not renamed,
        asked_model=asked if isinstance(asked, str) else model.id,
        model=model,
        mode=mode,
        namespace=namespace,
        domain=_domain(options, state),
        limits=limits,
        episode=None if mode is Mode.OFF else state.service.new_episode(),
        request_id=request.state.request_id,
        client_request_id=request.state.client_request_id,
        is_retry=request.headers.get("x-stainless-retry-count", "0") not in ("", "0"),
    )


def _body(raw: bytes, mode: Mode) -> dict[str, Any]:
    """The fields of the body; none where it can't be read, and nothing but the model server needs
    to. Raises `InvalidRequest`."""
    try:
        return parse_json(raw)
    except InvalidRequest:
        if mode is Mode.OFF:
            return {}
        raise


def _domain(options: TTCLOptions, state: AppState) -> str:
    domain = options.domain or "default"
    if domain not in state.prompts.domains:
        known = ", ".join(state.prompts.domains)
        raise InvalidRequest(f"ttcl.domain: must be one of {known}", param="ttcl.domain")
    return domain


def _namespace(request: Request, options: TTCLOptions, state: AppState, caller: Caller) -> str:
    """Raises `NotAllowed`."""
    named = options.namespace or header_namespace(request)
    namespace = named or caller.first_namespace or state.settings.namespace
    if not caller.reaches(namespace):
        raise namespace_forbidden(namespace)
    return namespace


def _sent_headers(request: Request) -> dict[str, str]:
    """Every call for this request says JSON itself."""
    sent = sent_headers(request)
    sent.pop("content-type", None)
    return sent


def _name(call: ChatCall) -> None:
    """From now on all logs of this request, and its span, say what it is about."""
    ids = {"namespace": call.namespace}
    if call.episode is not None:
        ids["episode"] = call.episode
    bind_contextvars(**ids)
    stream = bool(call.request.stream)
    set_attributes(current(), mode=call.mode.value, model=call.model.id, stream=stream, **ids)


async def _known(state: AppState, caller: Caller, namespace: str) -> None:
    """A namespace comes into being with its first request, but for a key that may not learn. The
    configured default is as good as there. Raises `NotFound`."""
    if caller.may(Permission.LEARN) or namespace == state.settings.namespace:
        return
    if not await state.store.namespaces.exists(namespace):
        raise unknown_namespace(namespace)


async def _split(name: str, state: AppState) -> tuple[str, Mode | None]:
    """The upstream's name of a model and the mode that its name here asks for; the upstream's own
    exact names win."""
    base, mode = split_model(name)
    if mode is None:
        return name, None
    try:
        own = name in await state.upstream.models()
    except UpstreamError:
        own = False
    return (name, None) if own else (base, mode)


def _header_mode(request: Request) -> Mode | None:
    given = request.headers.get(MODE_HEADER)
    if given is None:
        return None
    try:
        return Mode(given.strip().lower())
    except ValueError as error:
        raise InvalidRequest(
            "X-TTCL-Mode: must be off, steer or explore", param="X-TTCL-Mode"
        ) from error


def _header_examples(request: Request) -> int | None:
    given = request.headers.get(EXAMPLES_HEADER)
    if given is None:
        return None
    text = given.strip()
    # `isdigit` alone knows digits that are no numbers, and a long number is costly to read.
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= MOST_EXAMPLES):
        raise InvalidRequest(
            f"X-TTCL-Max-Examples: must be a whole number from 0 to {MOST_EXAMPLES}",
            param="X-TTCL-Max-Examples",
        )
    return int(text)


def header_namespace(request: Request) -> str | None:
    given = request.headers.get(NAMESPACE_HEADER)
    if given is not None and not NAMESPACE.match(given):
        raise InvalidRequest(
            "X-TTCL-Namespace: 1 to 64 letters, digits, '_', '.', '-'", param="X-TTCL-Namespace"
        )
    return given
