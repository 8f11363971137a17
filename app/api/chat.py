"""`POST /v1/chat/completions`, and what requests in other formats have in common with it."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from app.access.callers import Caller
from app.access.tenants import tenant
from app.api.access_log import AccessEntry
from app.api.dependencies import (
    Client,
    State,
    app_state,
    client,
    given_key,
    namespace_forbidden,
    unknown_namespace,
)
from app.api.passthrough import passed, sent_headers
from app.api.schemas.common import STREAMED, TOLD_HEADERS, ChatCompletion, Responses, refuses
from app.api.streaming import STOPPING, ClientGone, EventStream, LiveResponse, until_disconnect
from app.chat.call import ChatCall, Stream
from app.chat.chores import DECLARED, chore_of
from app.chat.formats import ApiFormat, Reading
from app.chat.inline_exploration import failure_events
from app.chat.request import (
    ChatRequest,
    TTCLOptions,
    parse_body,
    parse_chat,
    parse_options,
    sent_fields,
    split_model,
    unread_chat,
)
from app.domain import json_text
from app.domain.trajectory import Mode
from app.exceptions import InvalidRequest, TTCLError, UpstreamError
from app.observability.tracing import current, set_attributes
from app.settings import NAMESPACE
from app.upstream.capabilities import ModelInfo
from app.upstream.transport import forwarded_headers, forwarded_query
from app.wiring.container import AppState
from rules_store.models.keys import Permission
from rules_store.models.namespaces import MOST_EXAMPLES, NamespaceSettings


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
LEARN_HEADER = "X-TTCL-Learn"
CHORE_HEADER = "X-TTCL-Chore"
NOT_STEERED = "not_steered"
"""Of a request in another format than chat's that was passed on as in mode off; with the reason."""
IDEMPOTENCY_HEADER = "idempotency-key"
CLIENT_CLOSED_REQUEST = 499

_TRUTH = {"true": True, "1": True, "false": False, "0": False}
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
    return await served(request, state, caller, None)


async def served(
    request: Request, state: AppState, caller: Caller, fmt: ApiFormat | None
) -> Response:
    """The answer to a request in this format (None: chat's). Raises `TTCLError`."""
    access = AccessEntry(request.scope)
    # The mark is of the text's encoding, no part of the text.
    raw = (await request.body()).removeprefix(codecs.BOM_UTF8)
    mode = "unknown"
    status = 500
    forwarded_headers.set(_sent_headers(request))
    forwarded_query.set(request.scope["query_string"].decode("latin-1"))
    leave: Callable[[], None] | None = None
    try:
        leave = state.load.enter(caller.name)
        allowance = state.meter.admit(caller)
        call = await _call(request, raw, state, caller, fmt)
        mode = call.mode.value
        access.of(call)
        _name(call)
        response = await _respond(request, call, state)
        status = response.status_code
        if isinstance(response, LiveResponse):
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
    if call.format is not None and call.mode is Mode.OFF:
        return await _pass_on(request, call, state)
    try:
        answer, cut = await until_disconnect(request, state.service.answer(call))
    except ClientGone:
        log.info("client gone")
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(answer, Stream):
        return EventStream(answer, cut, failure_events(call.format, STOPPING))
    headers = answer.headers
    if not any(name.lower() == "content-type" for name in headers):
        headers = {"Content-Type": _JSON, **headers}
    return Response(answer.content, answer.status, headers)


async def _pass_on(request: Request, call: ChatCall, state: AppState) -> Response:
    """The client's bytes, less what is the gateway's, and the model server's answer as it comes."""
    sent = call.raw if call.verbatim else json_text.dumps(call.body)
    response = await passed(request, sent, state, call.caller)
    response.headers["X-TTCL-Mode"] = Mode.OFF.value
    if call.reading.obstacle is not None:
        reason = f"{NOT_STEERED}:{call.reading.obstacle}"
        state.metrics.degraded.labels(reason).inc()
        response.headers["X-TTCL-Degraded"] = reason
    return response


async def _call(
    request: Request, raw: bytes, state: AppState, caller: Caller, fmt: ApiFormat | None
) -> ChatCall:
    """Everything that a request says about itself. Body beats header beats name beats default."""
    default = _header_mode(request) or state.settings.mode
    body = await _body(raw, Mode.OFF if fmt else default, state)
    options = _options(request, body)
    sent, wants_ttcl = sent_fields(body)
    own_fields = "ttcl" in body or sent.get("stream_options") != body.get("stream_options")
    asked = body.get("model")
    base, named_mode = await _split(asked, state) if isinstance(asked, str) else ("", None)
    mode = options.mode or _header_mode(request) or named_mode or state.settings.mode
    read = _unread(base, body) if mode is Mode.OFF else _read(base, body, fmt)
    if read.why_off is not None:
        mode = Mode.OFF
    if mode is Mode.OFF:
        model = state.upstream.unlisted(base) if fmt is None else ModelInfo(base, "", 0, None)
    else:
        model = await state.upstream.resolve_model(base)
    namespace = _namespace(request, options, state, caller)
    if mode is not Mode.OFF:
        await _known(state, caller, namespace)
    own = state.store.namespaces.settings_of(namespace)
    given = options.max_examples
    limits = state.settings.limits(
        own,
        positive=options.max_positive,
        negative=options.max_negative,
        examples=_header_examples(request) if given is None else given,
    )
    renamed = isinstance(asked, str) and model.id != asked
    if renamed:
        sent["model"] = model.id
    reading = read.reading or Reading(sent, read.why_off)
    fingerprint = ""
    if mode is Mode.EXPLORE:
        fingerprint = _fingerprint(request, raw, namespace, repr((options, limits)))
    is_retry = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
    return ChatCall(
        caller=caller,
        request=read.request,
        options=options,
        unread=read.unread,
        body=sent,
        reading=reading,
        raw=raw,
        verbatim=not (own_fields or renamed),
        asked_model=asked if isinstance(asked, str) else model.id,
        model=model,
        mode=mode,
        namespace=namespace,
        domain=_domain(options, state),
        limits=limits,
        episode=None if mode is Mode.OFF else state.service.new_episode(),
        request_id=request.state.request_id,
        client_request_id=request.state.client_request_id,
        is_retry=is_retry,
        fingerprint=fingerprint,
        says_retry=is_retry or IDEMPOTENCY_HEADER in request.headers,
        wants_ttcl=mode is not Mode.OFF
        and (state.settings.stream_ttcl if wants_ttcl is None else wants_ttcl),
        chore=None if mode is Mode.OFF else _chore(options, own, reading.fields),
        format=fmt,
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """A request as far as steering and the loop can read it."""

    request: ChatRequest
    unread: tuple[str, ...] = ()
    reading: Reading | None = None
    """Of another format than chat's."""
    why_off: str | None = None
    """Why it is passed on as in mode off, though another one was asked for."""


def _read(base: str, body: dict[str, Any], fmt: ApiFormat | None) -> _Read:
    """Raises `InvalidRequest` for a chat request without what steering needs; one in another format
    is then left to the model server."""
    if fmt is None:
        return _Read(*parse_chat(body))
    if fmt.left_alone(body):
        return _unread(base, body, "background")
    try:
        reading = fmt.read(body)
        return _Read(*parse_chat(reading.fields), reading)
    except InvalidRequest:
        return _unread(base, body, "unreadable_fields")


def _unread(base: str, body: dict[str, Any], why: str | None = None) -> _Read:
    return _Read(unread_chat(base, stream=bool(body.get("stream"))), why_off=why)


def _options(request: Request, body: Mapping[str, Any]) -> TTCLOptions:
    """What a body says to the gateway itself, and in its place what headers say. Raises
    `InvalidRequest`."""
    options = parse_options(body)
    said: dict[str, bool] = {}
    for name, header in (("learn", LEARN_HEADER), ("chore", CHORE_HEADER)):
        told = _header_truth(request, header)
        if told is not None and getattr(options, name) is None:
            said[name] = told
    return options.model_copy(update=said) if said else options


def _fingerprint(request: Request, raw: bytes, *about: str) -> str:
    """Equal for a request and its retry; who it is from and what headers said are part of it."""
    digest = hashlib.blake2b(digest_size=16)
    query = request.scope["query_string"].decode("latin-1")
    idempotency = request.headers.get(IDEMPOTENCY_HEADER, "")
    where = request.scope["path"]
    for part in (given_key(request.headers), idempotency, where, query, *about):
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(raw)
    return digest.hexdigest()


def _header_truth(request: Request, name: str) -> bool | None:
    given = request.headers.get(name)
    if given is None:
        return None
    try:
        return _TRUTH[given.strip().lower()]
    except KeyError as error:
        raise InvalidRequest(f"{name}: must be true or false", param=name) from error


def _chore(options: TTCLOptions, own: NamespaceSettings, body: Mapping[str, Any]) -> str | None:
    """Which chore a request is: as it says itself, else as its namespace does, else as it looks."""
    declared = options.chore
    if declared is None and own.chores in ("all", "none"):
        declared = own.chores == "all"
    if declared is False:
        return None
    found = chore_of([each for each in body["messages"] if isinstance(each, dict)], body)
    return found or (DECLARED if declared else None)


async def _body(raw: bytes, mode: Mode, state: AppState) -> dict[str, Any]:
    """The fields of the body; none where it can't be read, and nothing but the model server needs
    to. Raises `InvalidRequest`."""
    try:
        return await parse_body(raw, state.large_bodies)
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
    """From now on all logs of this request, and its span, say what it is about, and what is scarce
    is shared out by it."""
    tenant.set((call.caller.name, call.namespace))
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
