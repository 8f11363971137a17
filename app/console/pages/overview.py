"""Does it help, what does it cost, what waits for somebody: on one page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi.responses import HTMLResponse

from app.api.health import readiness
from app.api.schemas.common import Readiness
from app.console import charts
from app.console.access import At, Text, console_router
from app.console.lists import RANGES, days_of
from app.console.pages.effect import first_effects
from app.wiring.container import AppState
from rules_store.models.episodes import EpisodeFilter
from rules_store.models.traffic import TrafficDay

router = console_router()

PATIENCE = 3.0
"""Seconds that the page waits for the model server."""
LATEST = 8


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through in some days, and what it cost."""

    days: list[TrafficDay]

    def _sum(self, name: str) -> int:
        return sum(getattr(day, name) for day in self.days)

    @property
    def requests(self) -> int:
        return self._sum("requests")

    @property
    def judged(self) -> int:
        return self._sum("good") + self._sum("bad")

    @property
    def good(self) -> int:
        return self._sum("good")

    @property
    def learning_calls(self) -> int:
        return self._sum("learning_calls")

    @property
    def learning_tokens(self) -> int:
        return self._sum("learning_tokens")

    @property
    def calls_for_one(self) -> float | None:
        """Upstream calls to a request, its own among them; None of no request."""
        return 1 + self.learning_calls / self.requests if self.requests else None

    @property
    def added_tokens(self) -> int | None:
        """Of experience in a prompt that has any, on average; an estimate. None where none has."""
        steered = self._sum("steered")
        return round(self._sum("experience_tokens") / steered) if steered else None

    @property
    def milliseconds(self) -> float | None:
        measured = self._sum("measured")
        return sum(day.milliseconds for day in self.days) / measured if measured else None

    @property
    def spent(self) -> bool:
        return bool(self.requests or self.learning_calls or self._sum("experience_tokens"))

    @property
    def listed(self) -> list[TrafficDay]:
        """Days on which something happened, the latest first."""
        quiet = [0] * 4
        return [
            day
            for day in reversed(self.days)
            if [day.requests, day.learning_calls, day.good, day.bad] != quiet
        ]

    @property
    def requests_chart(self) -> charts.BarChart | None:
        return _bars([(day, day.requests) for day in self.days])

    @property
    def cost_chart(self) -> charts.BarChart | None:
        return _bars([(day, day.learning_calls) for day in self.days])


@router.get("")
async def overview(desk: At, days: Text = "") -> HTMLResponse:
    store, shown = desk.state.store, days_of(days)
    ready, stats, episodes, traffic = await asyncio.gather(
        _readiness(desk.state),
        store.stats(desk.within),
        store.episodes.list(EpisodeFilter(namespaces=desk.within), limit=LATEST),
        store.effect.traffic(days=shown, within=desk.within),
    )
    conflicts = await store.examples.conflicts(within=desk.within, limit=1)
    return desk.page(
        "overview.html",
        ready=ready,
        stats=stats,
        episodes=episodes,
        feedback=await store.evidence.feedback_of_each([each.id for each in episodes.items]),
        conflicts=conflicts.total,
        effects=await first_effects(desk, [each.namespace for each in episodes.items]),
        traffic=Traffic(traffic),
        days=shown,
        ranges=RANGES,
        models=(ready.checks.get("upstream") or {}).get("models") or [],
    )


def _bars(values: list[tuple[TrafficDay, int]]) -> charts.BarChart | None:
    if not any(value for _, value in values):
        return None
    return charts.bars([(f"{day.day.day} {day.day:%b}", value) for day, value in values])


async def _readiness(state: AppState) -> Readiness:
    try:
        async with asyncio.timeout(PATIENCE):
            return await readiness(state)
    except TimeoutError:
        reason = f"no answer within {PATIENCE:.0f} s"
        check = {"ok": False, "reason": reason}
        return Readiness(status="unavailable", degraded=["upstream"], checks={"upstream": check})
