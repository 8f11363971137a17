"""Namespaces: what is in them, their learning curve, freezing, and going back in time."""

from __future__ import annotations

from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.console import charts
from app.console.access import At, Id, Posted, SignedInRequest, Text, console_router
from rules_store.models.events import CurvePoint, EventFilter

router = console_router()

PAGE = 50
EVENTS = 25
DAYS = 30


@router.get("/namespaces")
async def namespaces(desk: At, cursor: Text = "") -> HTMLResponse:
    page = await desk.state.store.namespaces.list(limit=PAGE, cursor=cursor or None)
    return desk.page("namespaces.html", page=page, cursor=cursor)


@router.get("/namespaces/{name}")
async def namespace(name: Id, desk: At, cursor: Text = "") -> HTMLResponse:
    store = desk.state.store
    summary = await store.namespaces.summary(name)
    curve = await store.history.curve(name, points=DAYS)
    events = await store.history.events(
        EventFilter(namespace=name), limit=EVENTS, cursor=cursor or None
    )
    return desk.page(
        "namespace.html",
        summary=summary,
        space=summary.namespace,
        curve=curve,
        answered=_answered(curve),
        changed=_changed(curve),
        events=events,
        cursor=cursor,
        snapshots=await store.history.snapshots(name, limit=20),
        conflicts=(await store.examples.conflicts(name, limit=1)).total,
    )


@router.post("/namespaces/{name}/freeze")
async def freeze(name: Id, desk: At, form: Posted) -> RedirectResponse:
    await desk.state.store.namespaces.freeze(name, change=desk.change(form.reason))
    return _back(desk, name, "Frozen: its rules stay as they are, and nothing is learned.")


@router.post("/namespaces/{name}/unfreeze")
async def unfreeze(name: Id, desk: At, form: Posted) -> RedirectResponse:
    await desk.state.store.namespaces.unfreeze(name, change=desk.change(form.reason))
    return _back(desk, name, "Unfrozen: it learns again.")


@router.post("/namespaces/{name}/snapshot")
async def snapshot(name: Id, desk: At, form: Posted) -> Response:
    label = form.get("label")[:100]
    made = await desk.state.store.history.snapshot(name, label, change=desk.change(form.reason))
    return _back(desk, name, f"This point is named “{made.label}” now.")


def _back(desk: SignedInRequest, name: str, notice: str) -> RedirectResponse:
    return desk.go(f"/console/namespaces/{name}", notice)


def _answered(curve: list[CurvePoint]) -> charts.LineChart | None:
    if not any(point.episodes for point in curve):
        return None
    return charts.lines(
        _days(curve),
        {
            "requests": [point.episodes for point in curve],
            "learned from": [point.learned for point in curve],
        },
    )


def _changed(curve: list[CurvePoint]) -> charts.LineChart | None:
    if not any(p.rules_created + p.rules_merged + p.rules_retired for p in curve):
        return None
    return charts.lines(
        _days(curve),
        {
            "new rules": [point.rules_created for point in curve],
            "learned again": [point.rules_merged for point in curve],
            "retired": [point.rules_retired for point in curve],
        },
    )


def _days(curve: list[CurvePoint]) -> list[str]:
    return [f"{point.start.day} {point.start:%b}" for point in curve]
