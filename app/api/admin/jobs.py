"""`/admin/v1/jobs`: what learning has before it, and what went wrong."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.access.callers import Caller
from app.api.admin.common import Cursor, Limit, Namespace, known_namespace
from app.api.dependencies import AdminRead, AdminWrite, State, unknown_namespace
from app.api.schemas.common import ListOf, refuses
from app.api.schemas.jobs import Job, PauseBody, Pauses
from app.api.schemas.namespaces import LARGEST_ID
from app.api.schemas.rules import Write
from app.wiring.container import AppState
from rules_store.errors import UnknownJob
from rules_store.models.jobs import JobFilter, JobState
from rules_store.operations.jobs import EVERY_NAMESPACE

router = APIRouter(tags=["jobs"])

JobId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("/jobs", summary="List learning jobs, newest first")
async def list_jobs(
    state: State,
    caller: AdminRead,
    namespace: Namespace = None,
    job_state: Annotated[JobState | None, Query(alias="state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[Job]:
    await known_namespace(state, namespace)
    where = JobFilter(state=job_state, namespace=namespace, within=caller.namespaces)
    page = await state.store.jobs.list(where, limit=limit, cursor=cursor)
    return ListOf[Job].of(page, data=[Job.of(job) for job in page.items])


@router.post(
    "/jobs/{job_id}/retry", summary="Let a failed job be tried again", responses=refuses(409)
)
async def retry_job(job_id: JobId, body: Write, state: State, caller: AdminWrite) -> Job:
    if not caller.reaches((await state.store.jobs.get(job_id)).namespace):
        raise UnknownJob(job_id)
    job = await state.store.jobs.retry_failed(job_id, change=body.change)
    state.worker.wake()
    return Job.of(job)


@router.post(
    "/jobs:pause",
    summary="Let learning jobs wait, of one namespace or of all",
    responses=refuses(404),
)
async def pause(body: PauseBody, state: State, caller: AdminWrite) -> Pauses:
    _check_reach(caller, body.namespace)
    await state.store.jobs.pause(body.namespace, change=body.change)
    return await _pauses(state, caller)


@router.post(
    "/jobs:resume",
    summary="End such a pause; that of all and that of one are two",
    responses=refuses(404),
)
async def resume(body: PauseBody, state: State, caller: AdminWrite) -> Pauses:
    _check_reach(caller, body.namespace)
    await state.store.jobs.resume(body.namespace, change=body.change)
    return await _pauses(state, caller)


def _check_reach(caller: Caller, namespace: str | None) -> None:
    if namespace is None:
        caller.demand_everywhere()
    elif not caller.reaches(namespace):
        raise unknown_namespace(namespace)


async def _pauses(state: AppState, caller: Caller) -> Pauses:
    paused = await state.store.jobs.paused()
    return Pauses(
        all=EVERY_NAMESPACE in paused,
        namespaces=[name for name in paused if name != EVERY_NAMESPACE and caller.reaches(name)],
    )
