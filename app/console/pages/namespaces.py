"""Namespaces: made and deleted, what is in them, their learning curve, freezing, and going back in
time."""

from __future__ import annotations

from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.api.admin.namespaces import create_namespace
from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.namespaces import NamespaceCreate
from app.console import charts
from app.console.access import At, Form, Id, Posted, SignedInRequest, Text, console_router
from app.console.lists import RANGES, days_of
from app.exceptions import InvalidRequest, NotAllowed
from rules_store.errors import StoreError
from rules_store.models.events import CurvePoint, EventFilter

router = console_router()

PAGE = 50
EVENTS = 25
HERE = "/console/namespaces"


@router.get("/namespaces")
async def namespaces(desk: At, cursor: Text = "") -> HTMLResponse:
    return await _list(desk, cursor=cursor)


@router.post("/namespaces")
async def create(desk: At, form: Posted) -> Response:
    try:
        body = validated(
            NamespaceCreate, name=form.get("name"), actor=desk.actor, reason=form.reason
        )
        await create_namespace(body, desk.state, desk.caller)
    except (StoreError, InvalidRequest, NotAllowed) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _list(desk, status=known.status, typed=form)
    return desk.go(f"{HERE}/{body.name}", "Made. Requests that name it are answered in it.")


@router.get("/namespaces/{namespace}")
async def namespace(namespace: Id, desk: At, cursor: Text = "", days: Text = "") -> HTMLResponse:
    return await _page(desk, namespace, cursor=cursor, days=days)


@router.post("/namespaces/{namespace}/freeze")
async def freeze(namespace: Id, desk: At, form: Posted) -> RedirectResponse:
    await desk.state.store.namespaces.freeze(namespace, change=desk.change(form.reason))
    return _back(desk, namespace, "Frozen: its rules stay as they are, and nothing is learned.")


@router.post("/namespaces/{namespace}/unfreeze")
async def unfreeze(namespace: Id, desk: At, form: Posted) -> RedirectResponse:
    await desk.state.store.namespaces.unfreeze(namespace, change=desk.change(form.reason))
    return _back(desk, namespace, "Unfrozen: it learns again.")


@router.post("/namespaces/{namespace}/snapshot")
async def snapshot(namespace: Id, desk: At, form: Posted) -> Response:
    label, change = form.get("label")[:100], desk.change(form.reason)
    made = await desk.state.store.history.snapshot(namespace, label, change=change)
    return _back(desk, namespace, f"This point is named “{made.label}” now.")


@router.post("/namespaces/{namespace}/delete")
async def delete(namespace: Id, desk: At, form: Posted) -> Response:
    """With all that is in it, for good; its name must be typed."""
    try:
        change = desk.change(form.reason)
        if form.get("confirm") != namespace:
            raise InvalidRequest("Type the namespace's name to delete it", param="confirm")
        gone = await desk.state.store.namespaces.delete(namespace, change=change)
    except InvalidRequest as error:
        desk.problem(error.message)
        return await _page(desk, namespace, status=error.status)
    said = f"{gone.rules} rules, {gone.examples} examples and {gone.episodes} episodes"
    return desk.go(HERE, f"Deleted: {namespace} with {said}.")


async def _list(
    desk: SignedInRequest, *, status: int = 200, cursor: str = "", typed: Form | None = None
) -> HTMLResponse:
    page = await desk.state.store.namespaces.list(
        within=desk.within, limit=PAGE, cursor=cursor or None
    )
    return desk.page(
        "namespaces.html",
        status=status,
        page=page,
        cursor=cursor,
        typed=typed.fields if typed else None,
    )


async def _page(
    desk: SignedInRequest, name: str, *, status: int = 200, cursor: str = "", days: str = ""
) -> HTMLResponse:
    store, shown = desk.state.store, days_of(days)
    summary = await store.namespaces.summary(name)
    curve = await store.history.curve(name, points=24 if shown == 1 else shown, hourly=shown == 1)
    events = await store.history.events(
        EventFilter(namespace=name), limit=EVENTS, cursor=cursor or None
    )
    return desk.page(
        "namespace.html",
        status=status,
        summary=summary,
        space=summary.namespace,
        curve=curve,
        answered=_answered(curve),
        changed=_changed(curve),
        events=events,
        cursor=cursor,
        snapshots=await store.history.snapshots(name, limit=20),
        conflicts=(await store.examples.conflicts(name, limit=1)).total,
        days=shown,
        ranges=RANGES,
        own=summary.namespace.settings.as_json(),
    )


def _back(desk: SignedInRequest, name: str, notice: str) -> RedirectResponse:
    return desk.go(f"{HERE}/{name}", notice)


def _answered(curve: list[CurvePoint]) -> charts.LineChart | None:
    if not any(point.episodes for point in curve):
        return None
    return charts.lines(
        _labels(curve),
        {
            "requests": [point.episodes for point in curve],
            "learned from": [point.learned for point in curve],
        },
    )


def _changed(curve: list[CurvePoint]) -> charts.LineChart | None:
    if not any(p.rules_created + p.rules_merged + p.rules_retired for p in curve):
        return None
    return charts.lines(
        _labels(curve),
        {
            "new rules": [point.rules_created for point in curve],
            "learned again": [point.rules_merged for point in curve],
            "retired": [point.rules_retired for point in curve],
        },
    )


def _labels(curve: list[CurvePoint]) -> list[str]:
    hourly = len(curve) > 1 and (curve[1].start - curve[0].start).days == 0
    return [
        f"{point.start:%H:%M}" if hourly else f"{point.start.day} {point.start:%b}"
        for point in curve
    ]
