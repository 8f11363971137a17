"""Taking a namespace back in time: first what would change, then the deed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from fastapi.responses import Response

from app.api.admin.namespaces import roll_back
from app.api.schemas.common import validated
from app.api.schemas.namespaces import RollbackBody
from app.console.access import At, Id, Posted, SignedInRequest, console_router
from app.console.rendering import rules_and_examples
from app.exceptions import InvalidRequest
from rules_store.errors import PreviewOutdated
from rules_store.models.events import RollbackTarget

router = console_router()

MOST_SHOWN = 200
Event = Annotated[int, Query(ge=1, le=2**31 - 1)]


@router.get("/namespaces/{namespace}/rollback")
async def preview(namespace: Id, desk: At, event: Event) -> Response:
    return await _page(desk, namespace, event)


@router.post("/namespaces/{namespace}/rollback")
async def confirm(namespace: Id, desk: At, form: Posted) -> Response:
    """Refused where something has happened since the preview."""
    seen = form.number("before_event")
    if seen is None:
        raise InvalidRequest("before_event: what the preview saw is missing", param="before_event")
    body = validated(
        RollbackBody,
        to_event=form.number("event"),
        expected_event=seen,
        actor=desk.actor,
        reason=form.reason,
    )
    assert body.to_event is not None
    try:
        done = await roll_back(namespace, body, desk.state)
    except PreviewOutdated:
        desk.problem("Something has changed since the preview. Nothing was done; look again.")
        return await _page(desk, namespace, body.to_event, status=409)
    what = rules_and_examples(done.changed, done.examples_changed)
    verb = "is" if done.changed + done.examples_changed == 1 else "are"
    return desk.go(
        f"/console/namespaces/{namespace}",
        f"{what} {verb} as after event {body.to_event} again. "
        f"Going back to event {done.before_event} undoes it.",
    )


async def _page(desk: SignedInRequest, name: str, event: int, *, status: int = 200) -> Response:
    plan = await desk.state.store.history.plan_rollback(name, RollbackTarget(event=event))
    return desk.page(
        "rollback.html",
        status=status,
        plan=plan,
        event=event,
        shown=plan.changes[:MOST_SHOWN],
        shown_examples=plan.examples[:MOST_SHOWN],
    )
