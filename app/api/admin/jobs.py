"""`/admin/v1/jobs`: what learning has before it, and what went wrong."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from app.access.callers import Caller
from app.api.admin.common import Cursor, Limit, Namespace, known_namespace
from app.api.dependencies import AdminRead, AdminWrite, State, unknown_namespace
from app.api.schemas.common import gives, lists
from app.api.schemas.namespaces import LARGEST_ID, Job, PauseBody, Pauses, job_shape
from app.api.schemas.rules import Write, list_shape
from app.wiring.container import AppState
from rules_store.errors import UnknownJob
from rules_store.models.events import Change
from rules_store.models.jobs import JobFilter, JobState
from rules_store.operations.jobs import EVERY_NAMESPACE

router = APIRouter(tags=["jobs"])

JobId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("/jobs", summary="List learning jobs, newest first", responses=lists(Job))
async def list_jobs(
    state: State,
    caller: AdminRead,
    namespace: Namespace = None,
    job_state: Annotated[JobState | None, Query(alias="state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    await known_namespace(state, namespace)
    where = JobFilter(state=job_state, namespace=namespace, within=caller.namespaces)
    page = await state.store.jobs.list(where, limit=limit, cursor=cursor)
    return list_shape(page, [job_shape(job) for job in page.items])


@router.post(
    "/jobs/{job_id}/retry",
    summary="Let a failed job be tried again",
    responses=gives(Job, also=(409,)),
)
async def retry_job(job_id: JobId, body: Write, state: State, caller: AdminWrite) -> dict[str, Any]:
    if not caller.reaches((await state.store.jobs.get(job_id)).namespace):
        raise UnknownJob(job_id)
    job = await state.store.jobs.retry_failed(job_id, change=Change(body.actor, body.reason))
    state.worker.wake()
    return job_shape(job)


@router.post(
    "/jobs:pause",
    summary="Let learning jobs wait, of one namespace or of all",
    responses=gives(Pauses, also=(404,)),
)
async def pause(body: PauseBody, state: State, caller: AdminWrite) -> dict[str, Any]:
    _check_reach(caller, body.namespace)
    await state.store.jobs.pause(body.namespace, change=Change(body.actor, body.reason))
    return await _pauses(state, caller)


@router.post(
    "/jobs:resume",
    summary="End such a pause; that of all and that of one are two",
    responses=gives(Pauses, also=(404,)),
)
async def resume(body: PauseBody, state: State, caller: AdminWrite) -> dict[str, Any]:
    _check_reach(caller, body.namespace)
    await state.store.jobs.resume(body.namespace, change=Change(body.actor, body.reason))
    return await _pauses(state, caller)


def _check_reach(caller: Caller, namespace: str | None) -> None:
    if namespace is None:
        caller.demand_everywhere()
    elif not caller.reaches(namespace):
        raise unknown_namespace(namespace)


async def _pauses(state: AppState, caller: Caller) -> dict[str, Any]:
    paused = await state.store.jobs.paused()
    return {
        "object": "pauses",
        "all": EVERY_NAMESPACE in paused,
        "namespaces": [name for name in paused if name != EVERY_NAMESPACE and caller.reaches(name)],
    }
