"""`/admin/v1/examples`: verified answers, read and changed; and what is done with many at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app.api import jsonl
from app.api.admin.common import (
    ActorParameter,
    Cursor,
    Limit,
    Namespace,
    SimilarTo,
    embedding_of,
    known_namespace,
    moved,
    vectors_of,
)
from app.api.admin.filters import Examples
from app.api.dependencies import AdminRead, AdminWrite, State, reach
from app.api.examples_jsonl import export_lines, import_lines
from app.api.schemas.common import ListOf, refuses, text
from app.api.schemas.examples import (
    ANSWER,
    QUESTION,
    Conflict,
    Example,
    ExampleCreate,
    ExampleEvidence,
    ExampleImport,
    ExamplePatch,
    ExamplePrune,
    ExamplePruneBody,
    ExampleWithHistory,
    NearExample,
    PrunedExample,
    Settled,
    WrittenExample,
)
from app.api.schemas.rules import Event, VersionedWrite
from app.exceptions import InvalidRequest
from app.loop.admission.examples import objections, screened
from app.settings import NAMESPACE_PATTERN
from app.wiring.container import AppState
from rules_store.models.examples import Example as StoredExample
from rules_store.models.examples import NewExample, Trust
from rules_store.models.rules import RuleSort, RuleState, Vector

router = APIRouter(tags=["examples"])

LINE = f'{{"namespace": "default", "question": "{QUESTION}", "answer": "{ANSWER}"}}\n'


@router.get("/examples", summary="List examples, newest first")
async def list_examples(
    state: State,
    _: AdminRead,
    where: Examples,
    sort: Annotated[RuleSort, Query(description="used: most exposures first")] = RuleSort.NEWEST,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[Example]:
    await known_namespace(state, where.namespace)
    page = await state.store.examples.list(where, sort=sort, limit=limit, cursor=cursor)
    data = [each.listed() for each in await with_lift(state, page.items)]
    return ListOf[Example].of(page, data=data)


@router.post(
    "/examples", status_code=201, summary="Write an example by hand", responses=refuses(404, 409)
)
async def create_example(body: ExampleCreate, state: State, caller: AdminWrite) -> WrittenExample:
    """What holds personal data or a secret waits in quarantine, with the reason. The same question
    and answer again is the example that is there, verified anew."""
    reach(caller, body.namespace)
    new, found = screened(NewExample(**body.content()))
    vector = await vector_of(state, body.question)
    await state.store.namespaces.ensure(body.namespace, actor=body.change.actor)
    stored = await state.store.examples.create(new, vector, change=body.change)
    return await _written(state, stored, found)


@router.get("/examples/{example_id}", summary="One example with its history")
async def get_example(example_id: str, state: State, _: AdminRead) -> ExampleWithHistory:
    stored = await state.store.examples.get(example_id)
    page = await state.store.examples.history(example_id, limit=500)
    standings = await state.store.evidence.standings_of([example_id])
    events = [Event.listed(each) for each in page.items]
    return ExampleWithHistory.of(stored, standings.get(example_id), history=events)


@router.get("/examples/{example_id}/history", summary="What happened to an example, newest first")
async def example_history(
    example_id: str, state: State, _: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[Event]:
    page = await state.store.examples.history(example_id, limit=limit, cursor=cursor)
    return ListOf[Event].of(page, data=[Event.listed(each) for each in page.items])


@router.get("/examples/{example_id}/evidence", summary="Whether an example helps, and where shown")
async def example_evidence(
    example_id: str, state: State, _: AdminRead, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> ExampleEvidence:
    """The latest requests that it was shown to, or withheld from, with what came of them."""
    found = await state.store.evidence.of_example(example_id, limit=limit)
    return ExampleEvidence.of(found, example_id=example_id)


@router.patch("/examples/{example_id}", summary="Change an example's texts", responses=refuses(409))
async def patch_example(
    example_id: str, body: ExamplePatch, state: State, _: AdminWrite
) -> WrittenExample:
    await state.store.examples.get(example_id)
    vector = None if body.question is None else await vector_of(state, body.question)
    stored = await state.store.examples.patch(
        example_id,
        **body.changes(),
        vector=vector,
        expected_version=body.expected_version,
        change=body.change,
    )
    # A person may write what is not learned; the checks only say so.
    found = objections(stored.question, stored.answer, stored.label)
    return await _written(state, stored, found)


@router.post(
    "/examples/{example_id}/retire", summary="Take an example out of use", responses=refuses(409)
)
async def retire_example(
    example_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> Example:
    step = state.store.examples.retire
    return await _answered(state, await moved(step, example_id, body))


@router.post(
    "/examples/{example_id}/restore",
    summary="Take a retired example into use again",
    responses=refuses(409),
)
async def restore_example(
    example_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> Example:
    step = state.store.examples.restore
    return await _answered(state, await moved(step, example_id, body))


@router.post(
    "/examples/{example_id}/quarantine",
    summary="Take an example out of use for review",
    responses=refuses(409),
)
async def quarantine_example(
    example_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> Example:
    step = state.store.examples.quarantine
    return await _answered(state, await moved(step, example_id, body))


@router.post(
    "/examples/{example_id}/release",
    summary="Make a quarantined example active",
    responses=refuses(409),
)
async def release_example(
    example_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> Example:
    step = state.store.examples.release
    return await _answered(state, await moved(step, example_id, body))


@router.post(
    "/examples/{example_id}/settle",
    summary="Say that this one is right: what contradicts it retires",
    responses=refuses(409),
)
async def settle_example(
    example_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> Settled:
    """409 where no other active example contradicts it."""
    retired = await moved(state.store.examples.settle, example_id, body)
    kept = await state.store.examples.get(example_id)
    shown = await with_lift(state, [kept, *retired])
    return Settled(kept=shown[0], retired=shown[1:])


# -- many at once


@router.get("/examples:search", summary="Examples with a question like this one, nearest first")
async def search_examples(
    state: State,
    caller: AdminRead,
    similar_to: SimilarTo,
    namespace: Namespace = None,
    example_state: Annotated[
        list[RuleState] | None, Query(alias="state", description="Unset: active and candidate")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> ListOf[NearExample]:
    """Each comes with `score`, the cosine of the two questions. `total` counts what is returned;
    there is no further page."""
    await known_namespace(state, namespace)
    if namespace is None and caller.namespaces is not None:
        raise InvalidRequest("namespace: name one of this key's namespaces", param="namespace")
    vector = await embedding_of(state, similar_to)
    found = await state.store.examples.nearest(
        vector,
        namespace=namespace,
        states=example_state or (RuleState.ACTIVE, RuleState.CANDIDATE),
        limit=limit,
    )
    standings = await state.store.evidence.standings_of([near.example.id for near in found])
    data = [
        NearExample.of(near.example, standings.get(near.example.id), score=near.similarity)
        for near in found
    ]
    return ListOf[NearExample](data=data, next_cursor=None, total=len(data))


@router.get("/examples:conflicts", summary="Examples that contradict each other, in pairs")
async def list_conflicts(
    state: State,
    caller: AdminRead,
    namespace: Namespace = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[Conflict]:
    """Both sides of each pair: neither is recalled until one of them is retired, reworded or
    quarantined."""
    await known_namespace(state, namespace)
    if namespace is None and caller.namespaces is not None:
        raise InvalidRequest("namespace: name one of this key's namespaces", param="namespace")
    page = await state.store.examples.conflicts(namespace, limit=limit, cursor=cursor)
    sides = [each for pair in page.items for each in (pair.one, pair.other)]
    data = iter(await with_lift(state, sides))
    pairs = [
        Conflict(similarity=pair.similarity, one=next(data), other=next(data))
        for pair in page.items
    ]
    return ListOf[Conflict].of(page, data=pairs)


@router.post(
    "/examples:prune",
    summary="Retire many examples by a policy, or preview that",
    responses=refuses(404, 409),
)
async def prune_examples(body: ExamplePruneBody, state: State, caller: AdminWrite) -> ExamplePrune:
    """A dry run names the examples that would go, and a `token`. With that token the real call
    retires exactly these, or answers 409 because they have changed since."""
    reach(caller, body.namespace)
    order = body.order()
    if body.dry_run:
        done = await state.store.examples.plan_prune(order)
    else:
        done = await state.store.examples.prune(order, token=body.token, change=body.change)
    standings = await state.store.evidence.standings_of(
        [victim.example.id for victim in done.victims]
    )
    pruned = [
        PrunedExample.of(
            victim.example, standings.get(victim.example.id), prune_reason=victim.reason
        )
        for victim in done.victims
    ]
    return ExamplePrune(
        namespace=body.namespace,
        policy=body.policy,
        dry_run=body.dry_run,
        token=done.token,
        active_before=done.active,
        active_after=done.active - len(pruned),
        total=len(pruned),
        examples=pruned,
    )


@router.get(
    "/examples:export",
    summary="Examples as JSON lines, oldest first",
    response_class=StreamingResponse,
    responses=text(jsonl.MEDIA_TYPE, LINE, description="An example a line"),
)
async def export_examples(
    state: State,
    _: AdminRead,
    where: Examples,
    vectors: Annotated[
        bool, Query(description="With vectors an import embeds nothing and finds the same")
    ] = True,
) -> StreamingResponse:
    await known_namespace(state, where.namespace)
    lines = export_lines(state.store, where, vectors=vectors)
    return jsonl.download(lines, "examples.jsonl")


@router.post(
    "/examples:import",
    summary="Take examples in from JSON lines",
    openapi_extra=jsonl.body_of(LINE),
)
async def import_examples(
    request: Request,
    state: State,
    caller: AdminWrite,
    namespace: Annotated[
        str | None, Query(pattern=NAMESPACE_PATTERN, description="Instead of the lines' own")
    ] = None,
    trust: Annotated[
        Trust, Query(description="Of lines that name none: you vouch for what you import")
    ] = Trust.LABEL,
    dry_run: bool = False,
    actor: ActorParameter = "admin",
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> ExampleImport:
    """Reports how many examples were written, how many the namespace has already, each refused
    line with its reason, and each that waits in quarantine because of a secret or personal data."""
    order = jsonl.Order(namespace, dry_run, actor, reason, caller.reaches)
    return await import_lines(state.store, state.embedder, await request.body(), order, trust=trust)


# -- what they become


async def vector_of(state: AppState, question: str) -> Vector | None:
    """None while the embedder is down; the background brings it later."""
    return (await vectors_of(state, question, None)).text


async def _answered(state: AppState, stored: StoredExample) -> Example:
    return (await with_lift(state, [stored]))[0]


async def _written(state: AppState, stored: StoredExample, found: list[Any]) -> WrittenExample:
    standings = await state.store.evidence.standings_of([stored.id])
    warnings = [finding.name for finding in found]
    return WrittenExample.of(stored, standings.get(stored.id), warnings=warnings)


async def with_lift(state: AppState, stored: list[StoredExample]) -> list[Example]:
    """Each with what is known of its worth."""
    standings = await state.store.evidence.standings_of([each.id for each in stored])
    return [Example.of(each, standings.get(each.id)) for each in stored]
