"""Whether steering helps: every namespace in a sentence, and each with what that rests on."""

from __future__ import annotations

from fastapi.responses import HTMLResponse, RedirectResponse

from app.api.schemas.effect import IN_WORDS, Effect, SignalOutcome
from app.console import charts
from app.console.access import At, Id, Posted, Text, console_router
from app.wiring.container import AppState
from rules_store.models.events import Change
from rules_store.operations.effect import REPORT_DAYS

router = console_router()

PAGE = 20
FIRST = 3
"""Namespaces on the overview."""


@router.get("/effect")
async def effects(desk: At, cursor: Text = "") -> HTMLResponse:
    page = await desk.state.store.namespaces.list(limit=PAGE, cursor=cursor or None)
    shown = [await effect_of(desk.state, each.namespace.name) for each in page.items]
    return desk.page("effects.html", page=page, effects=shown, cursor=cursor)


@router.get("/effect/{name}")
async def effect(name: Id, desk: At) -> HTMLResponse:
    found = await effect_of(desk.state, name)
    spend = await desk.state.store.effect.spend(name, days=REPORT_DAYS)
    return desk.page(
        "effect.html",
        effect=found,
        charts={each.signal: _chart(each) for each in found.signals},
        in_words=IN_WORDS,
        days=spend,
    )


@router.post("/effect/{name}/resume")
async def resume(name: Id, desk: At, form: Posted) -> RedirectResponse:
    change = Change(desk.session.actor, form.reason)
    await desk.state.store.effect.resume(name, change=change)
    return desk.go(f"/console/effect/{name}", "Steered again: the comparison begins anew.")


async def effect_of(state: AppState, name: str) -> Effect:
    """Raises UnknownNamespace."""
    report = await state.store.effect.report(name)
    return Effect.of_report(report, await state.store.effect.spend(name))


async def first_effects(state: AppState) -> list[Effect]:
    """Of the suspended namespaces, and then of those in which most is known: a few."""
    names = [*state.store.effect.suspended()]
    names += [name for name, _ in await state.store.effect.latest(20 * FIRST)]
    names.append(state.settings.namespace)
    first = list(dict.fromkeys(names))[:FIRST]
    known = [name for name in first if state.store.namespaces.get(name) is not None]
    return [await effect_of(state, name) for name in known]


def _chart(signal: SignalOutcome) -> charts.IntervalChart | None:
    """In points, over the conversations that count."""
    return charts.interval(
        [f"{point.conversations:,}" for point in signal.history],
        [(100 * p.low, 100 * p.difference, 100 * p.high) for p in signal.history],
    )
