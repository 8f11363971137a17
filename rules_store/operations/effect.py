"""Whether steering helps: the draw of control requests, their outcomes, the guard, and the cost.

Outcomes are added to what is known of their signal in the transaction that brings them
(`rules_store.operations.credit`), and the guard looks at the result there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.effect import (
    TOLD,
    Assignment,
    DaySpend,
    EffectPoint,
    EffectReport,
    SignalEffect,
    Suspension,
    ToldOutcome,
)
from rules_store.models.episodes import PLAYGROUND
from rules_store.models.events import Change
from rules_store.models.evidence import STRENGTH, Outcome
from rules_store.models.namespaces import Namespace
from rules_store.models.traffic import TrafficDay
from rules_store.operations import voices
from rules_store.operations.context import StoreContext
from rules_store.operations.namespaces import find
from rules_store.policy import control
from rules_store.policy.control import Arm, conversation_of, draw
from rules_store.policy.effect import (
    GUARD_ALPHA,
    OTHERS_ALPHA,
    EffectState,
    EffectVerdict,
    state_of,
)
from rules_store.policy.voices import Voice, without_any
from rules_store.repository import effect, events, namespaces, traffic

GUARD = "guard"
"""Actor of what the guard decides."""
SUSPENDED = "namespace.steering_suspended"
RESUMED = "namespace.steering_resumed"
SHARE_CHANGED = "namespace.control_share"
REPORT_DAYS = 30
MOST_REPORT_DAYS = 365
LOOKED_AT = 2000
"""Outcomes that are looked at to tell whose word it is that steering harms."""
_POINTS_APART = 1.08
"""Conversations of a point of the chart are so many times those of the one before."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a look at a namespace changed."""

    namespace: str
    resumed: bool = False
    share: float | None = None


class EffectOperations:
    """`store.effect`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    # -- without SQL: as of the index's last event

    def rate_of(self, namespace: str) -> float | str:
        """Share of control that is set, or `auto`; no I/O."""
        own = self._context.namespaces.settings_of(namespace).control_rate
        return self._context.options.control_rate if own is None else own

    def share_of(self, namespace: str) -> float:
        """Share of control that is in force; no I/O."""
        return _share(self.rate_of(namespace), self._context.namespaces.get(namespace))

    def suspension_of(self, namespace: str) -> Suspension | None:
        """Why the namespace is not steered; no I/O."""
        known = self._context.namespaces.get(namespace)
        return None if known is None else known.suspension

    def assign(self, namespace: str, conversation: str) -> Assignment:
        """The arm of a conversation, by what it goes by; no I/O. Every process on the store that
        has seen the same events gives the same."""
        drawn, share = conversation_of(namespace, conversation), self.share_of(namespace)
        return Assignment(draw(drawn, share), share, drawn)

    def suspended(self) -> list[str]:
        """Namespaces that are not steered; no I/O."""
        return [each.name for each in self._context.namespaces.all() if each.suspension is not None]

    # -- reading

    async def latest(self, most: int) -> list[tuple[str, SignalEffect]]:
        """(namespace, what a signal says) of the `most` that changed last, without their points and
        outcomes by arm."""
        async with self._context.database.read() as connection:
            return await effect.latest_states(connection, most)

    async def report(self, namespace: str, *, days: int = REPORT_DAYS) -> EffectReport:
        """Raises UnknownNamespace."""
        since = self._context.clock() - timedelta(days=days)
        async with self._context.database.read() as connection:
            known = await find(connection, namespace)
            use = await effect.use_by_arm(connection, namespace, since)
            told = await effect.outcomes_by_arm(connection, namespace, since)
            points = await effect.points(connection, namespace)
            found = await effect.states(connection, namespace)
        rate = known.settings.control_rate
        rate = self._context.options.control_rate if rate is None else rate
        signals = [
            replace(
                each,
                by_arm=told.get(each.signal, {}),
                points=_with_now(points.get(each.signal, []), each),
            )
            for each in sorted(found, key=lambda each: -STRENGTH[each.signal])
        ]
        return EffectReport(
            namespace, days, rate, _share(rate, known), known.suspension, use, tuple(signals)
        )

    async def spend(self, namespace: str, *, days: int = REPORT_DAYS) -> list[DaySpend]:
        """Of the days of which there is any, today the last. Raises UnknownNamespace."""
        since = self._context.clock() - timedelta(days=days - 1)
        async with self._context.database.read() as connection:
            await find(connection, namespace)
            return await effect.spend_by_day(connection, namespace, since)

    async def traffic(
        self, *, days: int, within: Collection[str] | None = None
    ) -> list[TrafficDay]:
        """The last `days` days in UTC, today the last, each of them: of these namespaces, or of all
        (None)."""
        today = self._context.clock().replace(hour=0, minute=0, second=0, microsecond=0)
        since = today - timedelta(days=days - 1)
        async with self._context.database.read() as connection:
            asked = await traffic.requests(connection, within, since, PLAYGROUND)
            told = await traffic.told(connection, within, since)
            served = await traffic.served(connection, within, since)
            learned = await traffic.learning(connection, within, since)
        shown = [(since + timedelta(days=number)).date() for number in range(days)]
        return [
            TrafficDay(
                day,
                *asked.get(day, (0,)),
                *told.get(day, (0, 0)),
                *served.get(day, (0, 0, 0, 0, 0, 0)),
                *learned.get(day, (0, 0)),
            )
            for day in shown
        ]

    # -- changing

    async def resume(self, namespace: str, *, change: Change) -> Namespace:
        """Steers a suspended namespace again; what its outcomes add up to begins anew. One that is
        not suspended stays as it is, without an event. Raises UnknownNamespace."""
        async with self._context.change() as connection:
            return await resume(self._context, connection, namespace, change)

    async def review(self, now: datetime | None = None) -> list[Reviewed]:
        """Resumes the namespaces whose time has come, and has the default schedule move shares;
        what changed. `now`: where it is earlier than the clock says."""
        clock = self._context.clock()
        now = clock if now is None else min(now, clock)
        done = []
        for known in self._context.namespaces.all():
            hours = known.settings.resume_after
            if known.suspension is not None:
                if hours is None or now < known.suspension.since + timedelta(hours=hours):
                    continue
                change = Change(events.POLICY, f"suspended for {hours} hours")
                await self.resume(known.name, change=change)
                done.append(Reviewed(known.name, resumed=True))
            elif self.rate_of(known.name) == control.AUTO:
                share = await self._scheduled(known, now)
                if share != known.control_share and await self._move(known.name, share):
                    done.append(Reviewed(known.name, share=share))
        return done

    async def _scheduled(self, known: Namespace, now: datetime) -> float | None:
        """The share by now; None while it warms up, which a namespace does once."""
        least = control.LEAST_OUTCOMES
        recent = now - timedelta(days=control.RECENT_DAYS)
        async with self._context.database.read() as connection:
            warm = known.control_share is not None or await effect.has_requests(
                connection, known.name, control.WARM_UP
            )
            if not warm:
                return None
            told = await effect.has_outcomes(connection, known.name, recent, least)
            found = await effect.states(connection, known.name) if told else []
        guarded = known.settings.guard is not False
        verdicts = {each.interval.verdict for each in found if each.signal in TOLD}
        return control.scheduled(
            outcomes=least if told else 0,
            known=EffectVerdict.HELPS in verdicts
            or (EffectVerdict.HARMS in verdicts and not guarded),
        )

    async def _move(self, namespace: str, share: float | None) -> bool:
        """Whether this process was the one that did it."""
        async with self._context.change() as connection:
            before = self._context.namespaces.get(namespace)
            if before is None or before.control_share == share:
                return False
            await namespaces.save(connection, replace(before, control_share=share))
            await events.append(
                connection,
                self._context.clock(),
                namespace,
                SHARE_CHANGED,
                Change(events.POLICY, "default schedule"),
                before={"control_share": before.control_share},
                after={"control_share": share},
            )
        return True


async def note(
    connection: AsyncConnection,
    namespace: str,
    episode_id: str,
    outcome: Outcome,
    now: datetime,
) -> None:
    """Adds the outcome of a request that was drawn for to what its signal says, as it is told
    first: of the first request of its conversation that has one."""
    drawn = await effect.counted_request(connection, episode_id)
    if drawn is None:
        return
    signal = outcome.source
    if not await effect.judge_first(connection, namespace, signal, drawn.conversation):
        return
    before = await effect.locked_state(connection, namespace, signal, now)
    after = before.plus(steered=drawn.arm is Arm.STEERED, share=drawn.share, value=outcome.value)
    await effect.put_state(connection, namespace, signal, after, now)
    if _is_point(after):
        await effect.add_point(connection, namespace, signal, _point(after, now))


async def guard(
    context: StoreContext, connection: AsyncConnection, namespace: str, now: datetime
) -> None:
    """Suspends the namespace where the outcomes that were told show that steering harms; where more
    than one key reaches it, what is left without any one of them has to say so too. Within
    `StoreContext.change`."""
    known = context.namespaces.get(namespace)
    if known is None or known.suspension is not None or known.settings.guard is False:
        return
    margin = known.settings.guard_margin or 0.0
    for each in await effect.states(connection, namespace):
        if each.signal not in TOLD or not each.state.below(-margin, GUARD_ALPHA):
            continue
        if voices.bounded(context, namespace) and not await _several_say_so(
            context, connection, namespace, each
        ):
            continue
        shown = each.interval
        assert shown.difference is not None, "it was drawn for"
        suspension = Suspension(
            now, each.signal, each.state.count, shown.difference, shown.low, shown.high
        )
        await namespaces.save(connection, replace(known, suspension=suspension))
        await events.append(
            connection,
            now,
            namespace,
            SUSPENDED,
            Change(GUARD, suspension.reason),
            before={"suspension": None},
            after={"suspension": suspension.as_json()},
        )
        return


async def _several_say_so(
    context: StoreContext, connection: AsyncConnection, namespace: str, found: SignalEffect
) -> bool:
    """Whether what is left shows harm without any one key's word."""
    told = await effect.latest_told(
        connection, namespace, found.signal, found.started_at, LOOKED_AT
    )
    by_voice: dict[Voice, list[tuple[int, ToldOutcome]]] = {}
    for place, each in enumerate(told):
        voice = voices.voice_of(context, namespace, each.key_id)
        by_voice.setdefault(voice, []).append((place, each))
    return without_any(by_voice, lambda left: _harms(chain.from_iterable(left.values())))


def _harms(told: Iterable[tuple[int, ToldOutcome]]) -> bool:
    """Whether these outcomes, each with its place in order, show harm: the first of each
    conversation."""
    first: dict[str, ToldOutcome] = {}
    for _, each in sorted(told, key=lambda pair: pair[0]):
        first.setdefault(each.conversation, each)
    counted = list(first.values())
    state = state_of(
        [each.arm is Arm.STEERED for each in counted],
        [each.share for each in counted],
        [each.value for each in counted],
    )
    return state.below(0.0, OTHERS_ALPHA)


def _share(rate: float | str, known: Namespace | None) -> float:
    if isinstance(rate, str):
        return 0.0 if known is None else known.control_share or 0.0
    return rate


def _is_point(state: EffectState) -> bool:
    """Whether the chart has a point after so many conversations: every one of the first dozen,
    then ever fewer."""
    before, after = (max(1, each) for each in (state.count - 1, state.count))
    return before == after or math.floor(math.log(before, _POINTS_APART)) < math.floor(
        math.log(after, _POINTS_APART)
    )


def _point(state: EffectState, at: datetime) -> EffectPoint:
    shown = state.interval()
    assert shown.difference is not None, "only what was drawn for is counted"
    return EffectPoint(state.count, shown.difference, shown.low, shown.high, at)


def _with_now(points: list[EffectPoint], each: SignalEffect) -> tuple[EffectPoint, ...]:
    """The last one as it is now."""
    if not each.state.count:
        return ()
    now = _point(each.state, each.updated_at)
    return (*(point for point in points if point.conversations < now.conversations), now)


async def resume(
    context: StoreContext, connection: AsyncConnection, namespace: str, change: Change
) -> Namespace:
    """See `EffectOperations.resume`; in a `StoreContext.change`."""
    before = await find(connection, namespace)
    if before.suspension is None:
        return before
    after = replace(before, suspension=None)
    await namespaces.save(connection, after)
    await effect.forget(connection, namespace)
    await events.append(
        connection,
        context.clock(),
        namespace,
        RESUMED,
        change,
        before={"suspension": before.suspension.as_json()},
        after={"suspension": None},
    )
    return after
