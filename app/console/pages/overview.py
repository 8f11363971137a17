"""What there is and whether it works, on one page."""

from __future__ import annotations

import asyncio

from fastapi.responses import HTMLResponse

from app.api.health import readiness
from app.api.schemas.common import Readiness
from app.console.access import At, console_router
from app.console.pages.effect import first_effects
from app.wiring.container import AppState
from rules_store.models.episodes import EpisodeFilter
from rules_store.models.rules import RuleFilter, RuleState

router = console_router()

PATIENCE = 3.0
"""Seconds that the page waits for the model server."""


@router.get("")
async def overview(desk: At) -> HTMLResponse:
    store = desk.state.store
    ready, stats, episodes, waiting = await asyncio.gather(
        _readiness(desk.state),
        store.stats(),
        store.episodes.list(EpisodeFilter(), limit=6),
        store.rules.list(RuleFilter(state=RuleState.QUARANTINED), limit=3),
    )
    conflicts = await store.examples.conflicts(limit=1)
    newest = await store.rules.list(RuleFilter(state=RuleState.ACTIVE), limit=5)
    return desk.page(
        "overview.html",
        ready=ready,
        stats=stats,
        episodes=episodes,
        newest=newest,
        quarantined=waiting,
        conflicts=conflicts.total,
        effects=await first_effects(desk.state),
    )


async def _readiness(state: AppState) -> Readiness:
    try:
        async with asyncio.timeout(PATIENCE):
            return await readiness(state)
    except TimeoutError:
        reason = f"no answer within {PATIENCE:.0f} s"
        check = {"ok": False, "reason": reason}
        return Readiness(status="unavailable", degraded=["upstream"], checks={"upstream": check})
