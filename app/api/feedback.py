"""`POST /v1/feedback`: what became of an answer, by the id of its episode or of its request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import ValidationError

from app.access.callers import Caller
from app.access.tenants import tenant
from app.api import jsonl
from app.api.chat import header_namespace
from app.api.dependencies import Client, State, namespace_forbidden
from app.api.errors import from_store
from app.api.schemas.common import (
    ErrorDetail,
    Feedback,
    FeedbackBatch,
    FeedbackItem,
    refuses,
)
from app.api.schemas.feedback import MOST_ITEMS, FeedbackBatchBody, FeedbackBody
from app.chat.recorder import own_request_id
from app.chat.request import invalid, parse_body, parse_json
from app.exceptions import InvalidRequest, NotFound, TTCLError
from app.wiring.container import AppState
from rules_store.errors import StoreError, UnknownEpisode
from rules_store.models.episodes import Episode
from rules_store.models.feedback import Feedback as StoredFeedback
from rules_store.models.feedback import NewFeedback
from rules_store.models.keys import Permission

# Whoever sends JSON to chat without saying so sends feedback so too.
router = APIRouter(tags=["chat"], strict_content_type=False)

IDEMPOTENCY_HEADER = "Idempotency-Key"

IdempotencyKey = Annotated[
    str | None,
    Header(alias=IDEMPOTENCY_HEADER, min_length=1, max_length=200, description="As `key`"),
]
NamespaceHeader = Annotated[
    str | None,
    Header(
        alias="X-TTCL-Namespace",
        description="Where a `request_id` is looked for; without it, as in a chat request: the "
        "key's first namespace, else the service's",
    ),
]


@router.post(
    "/v1/feedback",
    status_code=201,
    summary="Say how good an answer was, or what the right one is",
    responses=refuses(404, 409, 429),
)
async def give_feedback(
    body: FeedbackBody,
    request: Request,
    state: State,
    caller: Client,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    namespace: NamespaceHeader = None,
) -> Feedback:
    """The feedback as it is stored; under a `key` used before for this episode, the first one."""
    allowance = state.meter.admit(caller)
    if body.key is not None and idempotency_key not in (None, body.key):
        raise InvalidRequest(f"key: differs from the header {IDEMPOTENCY_HEADER}", param="key")
    given = await _take(state, caller, request, body, body.key or idempotency_key)
    if allowance is not None:
        response.headers.update(allowance.headers())
    return Feedback.of(given)


@router.post(
    "/v1/feedback:batch",
    summary="Feedback on many answers",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/FeedbackBatchBody"}},
                jsonl.MEDIA_TYPE: {
                    "schema": {"type": "string"},
                    "example": '{"episode_id": "ep_0123456789abcdef", "label": "84"}\n',
                },
            },
        }
    },
    responses=refuses(413, 429),
)
async def give_feedback_batch(
    request: Request,
    state: State,
    caller: Client,
    response: Response,
    namespace: NamespaceHeader = None,
) -> FeedbackBatch:
    """Each item is done and reported by itself, in order, as if it had been sent alone; one that is
    refused stops no other. The body is an object with `items`, or (`application/x-ndjson`) a line
    each. Counts as one request against the key's rate. Sent again after a failure, items with a
    `key` are counted once."""
    allowance = state.meter.admit(caller)
    header_namespace(request)
    kind = request.headers.get("content-type", "")
    items = await _items(await request.body(), kind, state)
    data = [await _item(state, caller, request, index, each) for index, each in enumerate(items)]
    if allowance is not None:
        response.headers.update(allowance.headers())
    refused = sum(each.error is not None for each in data)
    return FeedbackBatch(taken=len(data) - refused, refused=refused, data=data)


async def _items(raw: bytes, content_type: str, state: AppState) -> list[Any]:
    """What a batch holds, unchecked; of JSON lines, one that is none is its bytes. Raises
    `InvalidRequest`."""
    if content_type.partition(";")[0].strip().lower() != jsonl.MEDIA_TYPE:
        try:
            body = await parse_body(raw, state.large_bodies)
            return FeedbackBatchBody.model_validate(body).items
        except ValidationError as error:
            raise invalid(error) from error
    # No more of them are made than may be: a body may be line ends alone.
    cut = raw.split(b"\n", 2 * MOST_ITEMS)
    lines = [line for line in cut if line.strip()]
    if not 1 <= len(lines) <= MOST_ITEMS:
        raise InvalidRequest(f"items: give 1 to {MOST_ITEMS} lines", param="items")
    return lines


async def _item(
    state: AppState, caller: Caller, request: Request, index: int, item: Any
) -> FeedbackItem:
    try:
        if isinstance(item, bytes):
            item = parse_json(item)
        body = FeedbackBody.model_validate(item)
        given = await _take(state, caller, request, body, body.key)
        return FeedbackItem.taken(index, given)
    except ValidationError as invalid_item:
        error: TTCLError = invalid(invalid_item)
    except StoreError as refused:
        error = from_store(refused)
    except TTCLError as refused:
        error = refused
    detail = ErrorDetail(**error.envelope()["error"])
    return FeedbackItem(index=index, status=error.status, error=detail)


async def _take(
    state: AppState, caller: Caller, request: Request, body: FeedbackBody, key: str | None
) -> StoredFeedback:
    episode = await _episode(state, caller, request, body)
    tenant.set((caller.name, episode.namespace))
    sent = body.model_dump(exclude={"episode_id", "request_id", "key"})
    # Of whom nothing is learned, no evidence is taken either.
    learn = caller.may(Permission.LEARN)
    return await state.feedback.take(
        episode, NewFeedback(**sent, key=key), learn=learn, key_id=caller.name
    )


async def _episode(
    state: AppState, caller: Caller, request: Request, body: FeedbackBody
) -> Episode:
    """An episode of another's namespace is none. Raises `NotFound`, `NotAllowed`."""
    if body.episode_id is not None:
        try:
            episode = await state.store.episodes.get(body.episode_id)
            if caller.reaches(episode.namespace):
                return episode
        except UnknownEpisode:
            pass
        raise NotFound(
            f"There is no episode '{body.episode_id}'; a pass-through (mode off) leaves none",
            param="episode_id",
            code="episode_not_found",
        )
    assert body.request_id is not None, "checked with the body"
    namespace = header_namespace(request) or caller.first_namespace or state.settings.namespace
    if not caller.reaches(namespace):
        raise namespace_forbidden(namespace)
    try:
        return await state.store.episodes.of_request(
            namespace,
            *(own_request_id(name, body.request_id) for name in state.keys.names(caller)),
            body.request_id,  # of an episode from before keys were told apart
        )
    except UnknownEpisode as error:
        raise NotFound(
            f"There is no episode of a request '{body.request_id}' in the namespace '{namespace}'; "
            "a pass-through (mode off) leaves none",
            param="request_id",
            code="episode_not_found",
        ) from error
