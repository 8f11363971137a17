"""`/admin/v1/namespaces`: made, set up, frozen, rolled back, deleted."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from app.access.callers import change_by
from app.api import jsonl
from app.api.admin.common import ActorParameter, Cursor, Limit, known_namespace
from app.api.dependencies import AdminRead, AdminWrite, State, namespace_forbidden
from app.api.namespace_jsonl import export_lines, import_lines
from app.api.schemas.common import ListOf, refuses, text
from app.api.schemas.effect import Effect, Spending, Spent, SpentDay
from app.api.schemas.namespaces import (
    Curve,
    CurvePoint,
    Namespace,
    NamespaceCreate,
    NamespaceDeleted,
    NamespaceImported,
    NamespacePatch,
    NamespaceSummary,
    RollbackBody,
    RolledBack,
    Snapshot,
    SnapshotCreate,
)
from app.api.schemas.rules import Write
from app.exceptions import InvalidRequest
from app.learning.reembed import embedded, embedded_examples
from app.settings import NAMESPACE_PATTERN
from app.upstream.embeddings import EmbeddingFailed
from app.wiring.container import AppState
from rules_store.models.events import Rollback, RollbackTarget
from rules_store.models.rules import Vector, Vectors
from rules_store.operations.effect import MOST_REPORT_DAYS, REPORT_DAYS

router = APIRouter(prefix="/namespaces", tags=["namespaces"])

Name = Annotated[str, Path(pattern=NAMESPACE_PATTERN)]
Days = Annotated[int, Query(ge=1, le=MOST_REPORT_DAYS, description="The latest so many")]
EMBEDDED_AT_ONCE = 64
ROW = '{"table": "namespaces", "row": {"name": "support", "frozen": false, "settings": {}}}'


@router.get("", summary="List namespaces with what is in them, by name")
async def list_namespaces(
    state: State, caller: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[NamespaceSummary]:
    page = await state.store.namespaces.list(within=caller.namespaces, limit=limit, cursor=cursor)
    data = [NamespaceSummary.of(each) for each in page.items]
    return ListOf[NamespaceSummary].of(page, data=data)


@router.post("", status_code=201, summary="Create a namespace", responses=refuses(409))
async def create_namespace(
    body: NamespaceCreate, state: State, caller: AdminWrite
) -> NamespaceSummary:
    if not caller.reaches(body.name):
        raise namespace_forbidden(body.name)
    await state.store.namespaces.create(body.name, body.settings, change=body.change)
    return await _summary(state, body.name)


@router.get("/{namespace}", summary="One namespace with what is in it")
async def get_namespace(namespace: Name, state: State) -> NamespaceSummary:
    return await _summary(state, namespace)


@router.patch("/{namespace}", summary="Change how a namespace learns and steers")
async def patch_namespace(namespace: Name, body: NamespacePatch, state: State) -> NamespaceSummary:
    await state.store.namespaces.change_settings(
        namespace,
        body.settings.model_dump(exclude_unset=True),
        change=body.change,
    )
    return await _summary(state, namespace)


@router.delete("/{namespace}", summary="Delete a namespace with all that is in it")
async def delete_namespace(
    namespace: Name,
    state: State,
    confirm: Annotated[str, Query(max_length=100, description="The namespace's name again")],
    actor: ActorParameter = "admin",
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> NamespaceDeleted:
    if confirm != namespace:
        raise InvalidRequest("confirm: must be the namespace's name", param="confirm")
    deleted = await state.store.namespaces.delete(namespace, change=change_by(actor, reason))
    return NamespaceDeleted.of(deleted)


@router.get(
    "/{namespace}/export",
    summary="All that is stored about a namespace, as JSON lines",
    response_class=StreamingResponse,
    responses=text(jsonl.MEDIA_TYPE, ROW, description="A row of a table a line"),
)
async def export_namespace(namespace: Name, state: State, _: AdminRead) -> StreamingResponse:
    """All as of one moment; `import` takes it in again, here under another name or elsewhere."""
    await known_namespace(state, namespace)
    return jsonl.download(export_lines(state.store, namespace), f"{namespace}.jsonl")


@router.post(
    "/{namespace}/import",
    status_code=201,
    summary="Take in what a namespace's export gave, under this name",
    responses=refuses(409),
    openapi_extra=jsonl.body_of(ROW),
)
async def import_namespace(
    namespace: Name,
    request: Request,
    state: State,
    caller: AdminWrite,
    trust: Annotated[
        bool,
        Query(
            description="The evidence comes along, so that what steered there steers here at once; "
            "otherwise every rule proves itself anew (policy gated)"
        ),
    ] = False,
    actor: ActorParameter = "admin",
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> NamespaceImported:
    """All of it or nothing. Rules, examples and episodes keep their ids, so what is still here in
    another namespace is not taken in twice. Larger ones than a body may be go by `ttcl namespaces
    import`."""
    if not caller.reaches(namespace):
        raise namespace_forbidden(namespace)
    content = await request.body()
    done = await import_lines(
        state.store,
        lambda: content.splitlines(),
        name=namespace,
        trust=trust,
        change=change_by(actor, reason),
    )
    return NamespaceImported.of(done)


@router.post("/{namespace}/freeze", summary="Let nobody change what a namespace has learned")
async def freeze_namespace(namespace: Name, body: Write, state: State) -> Namespace:
    done = await state.store.namespaces.freeze(namespace, change=body.change)
    return Namespace.of(done)


@router.post("/{namespace}/unfreeze", summary="Let a frozen namespace change again")
async def unfreeze_namespace(namespace: Name, body: Write, state: State) -> Namespace:
    done = await state.store.namespaces.unfreeze(namespace, change=body.change)
    return Namespace.of(done)


@router.get("/{namespace}/snapshots", summary="List snapshots, newest first")
async def list_snapshots(
    namespace: Name, state: State, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[Snapshot]:
    page = await state.store.history.snapshots(namespace, limit=limit, cursor=cursor)
    return ListOf[Snapshot].of(page, data=page.items)


@router.post(
    "/{namespace}/snapshots",
    status_code=201,
    summary="Name this point to come back to",
    responses=refuses(409),
)
async def create_snapshot(namespace: Name, body: SnapshotCreate, state: State) -> Snapshot:
    made = await state.store.history.snapshot(namespace, body.label, change=body.change)
    return Snapshot.of(made)


@router.post(
    "/{namespace}/rollback",
    summary="Take all rules and examples back to how they once were",
    responses=refuses(409),
)
async def roll_back(namespace: Name, body: RollbackBody, state: State) -> RolledBack:
    plan = await state.store.history.plan_rollback(
        namespace, body.target, expected_last=body.expected_event
    )
    if not body.dry_run:
        plan = await state.store.history.roll_back(
            namespace,
            # The event by now: a time or the embedding's duration must not move it.
            RollbackTarget(event=plan.to_event),
            await _vectors(state, plan),
            example_vectors=await _example_vectors(state, plan),
            expected_last=body.expected_event,
            change=body.change,
        )
    return RolledBack.of(plan)


@router.get("/{namespace}/curve", summary="What was asked and learned, by day or hour")
async def curve(
    namespace: Name,
    state: State,
    by: Literal["day", "hour"] = "day",
    points: Annotated[int, Query(ge=1, le=1000, description="The latest so many")] = 30,
) -> Curve:
    found = await state.store.history.curve(namespace, points=points, hourly=by == "hour")
    return Curve(namespace=namespace, by=by, data=[CurvePoint.of(point) for point in found])


@router.get("/{namespace}/effect", summary="Whether steering helps, by the control group")
async def effect(namespace: Name, state: State, days: Days = REPORT_DAYS) -> Effect:
    return await _effect(state, namespace, days)


@router.post(
    "/{namespace}/effect/resume",
    summary="Steer again where the guard has suspended it; the comparison begins anew",
)
async def resume_steering(namespace: Name, body: Write, state: State) -> Effect:
    await state.store.effect.resume(namespace, change=body.change)
    return await _effect(state, namespace, REPORT_DAYS)


@router.get("/{namespace}/spending", summary="What learning and steering cost, by day")
async def spending(namespace: Name, state: State, days: Days = REPORT_DAYS) -> Spending:
    found = await state.store.effect.spend(namespace, days=days)
    return Spending(
        namespace=namespace,
        days=days,
        data=[SpentDay.of_day(each) for each in found],
        total=Spent.total(found),
    )


async def _effect(state: AppState, namespace: str, days: int) -> Effect:
    report = await state.store.effect.report(namespace, days=days)
    return Effect.of_report(report, await state.store.effect.spend(namespace, days=days))


async def _summary(state: AppState, namespace: str) -> NamespaceSummary:
    return NamespaceSummary.of(await state.store.namespaces.summary(namespace))


async def _vectors(state: AppState, plan: Rollback) -> dict[str, Vectors]:
    """While the embedder is down, none: the background brings them later."""
    if not state.embedder.ready:
        return {}
    rules, found = plan.unembedded, {}
    try:
        for start in range(0, len(rules), EMBEDDED_AT_ONCE):
            some = rules[start : start + EMBEDDED_AT_ONCE]
            for item in await embedded(state.store, state.embedder, some):
                found[item.rule_id] = item.vectors
    except EmbeddingFailed:
        return {}
    return found


async def _example_vectors(state: AppState, plan: Rollback) -> dict[str, Vector]:
    """As `_vectors`, of examples."""
    if not state.embedder.ready:
        return {}
    examples, found = plan.unembedded_examples, {}
    try:
        for start in range(0, len(examples), EMBEDDED_AT_ONCE):
            some = examples[start : start + EMBEDDED_AT_ONCE]
            for item in await embedded_examples(state.embedder, some):
                found[item.example_id] = item.vector
    except EmbeddingFailed:
        return {}
    return found
