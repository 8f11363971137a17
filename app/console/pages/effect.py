"""Whether steering helps: every namespace in a sentence, and each with what that rests on."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.responses import HTMLResponse, RedirectResponse

from app.api.schemas.effect import IN_WORDS, Effect, SignalOutcome
from app.console import charts
from app.console.access import At, Id, Posted, SignedInRequest, Text, console_router
from app.wiring.container import AppState
from rules_store.operations.effect import REPORT_DAYS

router = console_router()

PAGE = 20
FIRST = 3
"""Namespaces on the overview."""


@router.get("/effect")
async def effects(desk: At, cursor: Text = "") -> HTMLResponse:
    page = await desk.state.store.namespaces.list(
        within=desk.within, limit=PAGE, cursor=cursor or None
    )
    shown = [await effect_of(desk.state, each.namespace.name) for each in page.items]
    return desk.page("effects.html", page=page, effects=shown, cursor=cursor)


@router.get("/effect/{namespace}")
async def effect(namespace: Id, desk: At) -> HTMLResponse:
    found = await effect_of(desk.state, namespace)
    spend = await desk.state.store.effect.spend(namespace, days=REPORT_DAYS)
    return desk.page(
        "effect.html",
        effect=found,
        charts={each.signal: _chart(each) for each in found.signals},
        in_words=IN_WORDS,
        days=spend,
    )


@router.post("/effect/{namespace}/resume")
async def resume(namespace: Id, desk: At, form: Posted) -> RedirectResponse:
    await desk.state.store.effect.resume(namespace, change=desk.change(form.reason))
    return desk.go(f"/console/effect/{namespace}", "Steered again: the comparison begins anew.")


async def effect_of(state: AppState, name: str) -> Effect:
    """Raises UnknownNamespace."""
    report = await state.store.effect.report(name)
    return Effect.of_report(report, await state.store.effect.spend(name))


async def first_effects(desk: SignedInRequest, busy: Iterable[str] = ()) -> list[Effect]:
    """Of the suspended namespaces, then of those in which most is known, then of the `busy` ones: a
    few."""
    state = desk.state
    names = [*state.store.effect.suspended()]
    names += [name for name, _ in await state.store.effect.latest(20 * FIRST)]
    names += [*busy, state.settings.namespace]
    seen = [name for name in dict.fromkeys(names) if desk.caller.reaches(name)]
    known = [name for name in seen if state.store.namespaces.get(name) is not None]
    return [await effect_of(state, name) for name in known[:FIRST]]


def _chart(signal: SignalOutcome) -> charts.IntervalChart | None:
    """In points, over the conversations that count."""
    return charts.interval(
        [f"{point.conversations:,}" for point in signal.history],
        [(100 * p.low, 100 * p.difference, 100 * p.high) for p in signal.history],
    )
