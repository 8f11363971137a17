"""Learning jobs: where they stand, and another try for those that failed."""

from __future__ import annotations

from fastapi.responses import HTMLResponse, RedirectResponse

from app.console.access import At, Number, Posted, Text, console_router
from rules_store.errors import UnknownJob
from rules_store.models.jobs import JobFilter, JobState
from rules_store.operations.jobs import EVERY_NAMESPACE

router = console_router()

PAGE = 50
HERE = "/console/jobs"


@router.get("/jobs")
async def jobs(desk: At, state: Text = "", namespace: Text = "", cursor: Text = "") -> HTMLResponse:
    store = desk.state.store
    known = JobState(state) if state in list(JobState) else None
    where = JobFilter(within=desk.within, state=known, namespace=namespace or None)
    page = await store.jobs.list(where, limit=PAGE, cursor=cursor or None)
    return desk.page(
        "jobs.html",
        page=page,
        chosen=state,
        namespace=namespace,
        cursor=cursor,
        filters={"state": state, "namespace": namespace},
        namespaces=await desk.namespaces(),
        states=list(JobState),
        counts=(await store.stats(desk.within)).jobs,
        everywhere=desk.caller.everywhere,
        paused=EVERY_NAMESPACE in await store.jobs.paused(),
    )


@router.post("/jobs/{job_id}/retry")
async def retry(job_id: Number, desk: At, form: Posted) -> RedirectResponse:
    job = await desk.state.store.jobs.get(job_id)
    if not desk.caller.reaches(job.namespace):
        raise UnknownJob(job_id)
    await desk.state.store.jobs.retry_failed(job_id, change=desk.change(form.reason))
    desk.state.worker.wake()
    return desk.go(HERE, f"Job {job_id} will be tried again.")


@router.post("/jobs/pause")
async def pause(desk: At, form: Posted) -> RedirectResponse:
    desk.caller.demand_everywhere()
    await desk.state.store.jobs.pause(None, change=desk.change(form.reason))
    return desk.go(HERE, "Learning is paused everywhere; jobs under way come to their end.")


@router.post("/jobs/resume")
async def resume(desk: At, form: Posted) -> RedirectResponse:
    desk.caller.demand_everywhere()
    await desk.state.store.jobs.resume(None, change=desk.change(form.reason))
    desk.state.worker.wake()
    return desk.go(HERE, "Learning goes on.")
