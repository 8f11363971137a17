"""`/admin/v1/namespaces`: made, set up, frozen, rolled back, deleted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from app.api.admin.common import ActorParameter, Cursor, Limit
from app.api.dependencies import AdminRead, AdminWrite, State, namespace_forbidden
from app.api.schemas.common import gives, lists
from app.api.schemas.namespaces import (
    Curve,
    Namespace,
    NamespaceCreate,
    NamespaceDeleted,
    NamespacePatch,
    NamespaceSummary,
    RollbackBody,
    RolledBack,
    Snapshot,
    SnapshotCreate,
    namespace_shape,
    rollback_shape,
    snapshot_shape,
    summary_shape,
)
from app.api.schemas.rules import Write, list_shape
from app.exceptions import InvalidRequest
from app.learning.reembed import embedded
from app.settings import NAMESPACE_PATTERN
from app.upstream.embeddings import EmbeddingFailed
from app.wiring.container import AppState
from rules_store.models.events import Change, Rollback, RollbackTarget
from rules_store.models.namespaces import DEFAULTS
from rules_store.models.rules import Vectors

router = APIRouter(prefix="/namespaces", tags=["namespaces"])

Name = Annotated[str, Path(pattern=NAMESPACE_PATTERN)]
EMBEDDED_AT_ONCE = 64


@router.get(
    "", summary="List namespaces with what is in them, by name", responses=lists(NamespaceSummary)
)
async def list_namespaces(
    state: State, caller: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    page = await state.store.namespaces.list(within=caller.namespaces, limit=limit, cursor=cursor)
    return list_shape(page, [summary_shape(each) for each in page.items])


@router.post(
    "",
    status_code=201,
    summary="Create a namespace",
    responses=gives(NamespaceSummary, status=201, also=(409,)),
)
async def create_namespace(
    body: NamespaceCreate, state: State, caller: AdminWrite
) -> dict[str, Any]:
    if not caller.reaches(body.name):
        raise namespace_forbidden(body.name)
    await state.store.namespaces.create(
        body.name,
        DEFAULTS.changed(body.settings.changes()),
        change=Change(body.actor, body.reason),
    )
    return await _summary(state, body.name)


@router.get(
    "/{namespace}", summary="One namespace with what is in it", responses=gives(NamespaceSummary)
)
async def get_namespace(namespace: Name, state: State) -> dict[str, Any]:
    return await _summary(state, namespace)


@router.patch(
    "/{namespace}",
    summary="Change how a namespace learns and steers",
    responses=gives(NamespaceSummary),
)
async def patch_namespace(namespace: Name, body: NamespacePatch, state: State) -> dict[str, Any]:
    await state.store.namespaces.change_settings(
        namespace, body.settings.changes(), change=Change(body.actor, body.reason)
    )
    return await _summary(state, namespace)


@router.delete(
    "/{namespace}",
    summary="Delete a namespace with all that is in it",
    responses=gives(NamespaceDeleted),
)
async def delete_namespace(
    namespace: Name,
    state: State,
    confirm: Annotated[str, Query(max_length=100, description="The namespace's name again")],
    actor: ActorParameter = "admin",
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> dict[str, Any]:
    if confirm != namespace:
        raise InvalidRequest("confirm: must be the namespace's name", param="confirm")
    deleted = await state.store.namespaces.delete(namespace, change=Change(actor, reason))
    return {"object": "namespace.deleted", **asdict(deleted)}


@router.post(
    "/{namespace}/freeze",
    summary="Let nobody change the rules of a namespace",
    responses=gives(Namespace),
)
async def freeze_namespace(namespace: Name, body: Write, state: State) -> dict[str, Any]:
    done = await state.store.namespaces.freeze(namespace, change=Change(body.actor, body.reason))
    return namespace_shape(done)


@router.post(
    "/{namespace}/unfreeze",
    summary="Let a frozen namespace change again",
    responses=gives(Namespace),
)
async def unfreeze_namespace(namespace: Name, body: Write, state: State) -> dict[str, Any]:
    done = await state.store.namespaces.unfreeze(namespace, change=Change(body.actor, body.reason))
    return namespace_shape(done)


@router.get(
    "/{namespace}/snapshots", summary="List snapshots, newest first", responses=lists(Snapshot)
)
async def list_snapshots(
    namespace: Name, state: State, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    page = await state.store.history.snapshots(namespace, limit=limit, cursor=cursor)
    return list_shape(page, [snapshot_shape(each) for each in page.items])


@router.post(
    "/{namespace}/snapshots",
    status_code=201,
    summary="Name this point to come back to",
    responses=gives(Snapshot, status=201, also=(409,)),
)
async def create_snapshot(namespace: Name, body: SnapshotCreate, state: State) -> dict[str, Any]:
    made = await state.store.history.snapshot(
        namespace, body.label, change=Change(body.actor, body.reason)
    )
    return snapshot_shape(made)


@router.post(
    "/{namespace}/rollback",
    summary="Take all rules back to how they once were",
    responses=gives(RolledBack, also=(409,)),
)
async def roll_back(namespace: Name, body: RollbackBody, state: State) -> dict[str, Any]:
    plan = await state.store.history.plan_rollback(
        namespace, body.target, expected_last=body.expected_event
    )
    if not body.dry_run:
        plan = await state.store.history.roll_back(
            namespace,
            # The event by now: a time or the embedding's duration must not move it.
            RollbackTarget(event=plan.to_event),
            await _vectors(state, plan),
            expected_last=body.expected_event,
            change=Change(body.actor, body.reason),
        )
    return rollback_shape(plan)


@router.get(
    "/{namespace}/curve",
    summary="What was asked and learned, by day or hour",
    responses=gives(Curve),
)
async def curve(
    namespace: Name,
    state: State,
    by: Literal["day", "hour"] = "day",
    points: Annotated[int, Query(ge=1, le=1000, description="The latest so many")] = 30,
) -> dict[str, Any]:
    found = await state.store.history.curve(namespace, points=points, hourly=by == "hour")
    return {
        "object": "curve",
        "namespace": namespace,
        "by": by,
        "data": [{**asdict(point), "start": point.start.isoformat()} for point in found],
    }


async def _summary(state: AppState, namespace: str) -> dict[str, Any]:
    return summary_shape(await state.store.namespaces.summary(namespace))


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
