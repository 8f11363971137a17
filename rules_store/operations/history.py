"""What happened: the event log, named points of a namespace's history, numbers over time, and how
often a rule was used, day by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from rules_store.database.json_codec import storable
from rules_store.errors import DuplicateSnapshot, UnknownEvent
from rules_store.index.rule_index import unit
from rules_store.models import paging
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import (
    Change,
    CurvePoint,
    Event,
    EventFilter,
    NamespaceSnapshot,
    Rollback,
    RollbackTarget,
)
from rules_store.models.paging import Page
from rules_store.models.rules import Vector, Vectors
from rules_store.operations import rollback, rule_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.namespaces import find
from rules_store.operations.rules import find as find_rule
from rules_store.repository import episodes, events

EVERY_EVENT = EventFilter()


DAYS = 30


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """One day of a rule."""

    day: date
    """In UTC."""
    episodes: int
    uses: int
    """Of these episodes, those that the rule was injected into."""


@dataclass(frozen=True, slots=True)
class RuleUsage:
    """How often a rule was injected in the last `DAYS` days."""

    days: tuple[DailyUsage, ...]
    """Every day of the period, oldest first, also those without an episode."""
    looked_at: int
    """Episodes of the period that were looked at."""
    uses: int


class HistoryOperations:
    """`store.history`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def events(
        self, where: EventFilter = EVERY_EVENT, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Events, newest first. Raises InvalidCursor."""
        before = paging.decode("events", cursor)
        async with self._context.database.read() as connection:
            found, total = await events.page(connection, where, limit + 1, before)
        return paging.page("events", [(event.id, event) for event in found], total, limit)

    async def event(self, event_id: int, *, within: Collection[str] | None = None) -> Event:
        """`within`: the namespaces that it may be of; None: any. Raises UnknownEvent."""
        where = EventFilter(within=within, since_event=event_id, until_event=event_id)
        async with self._context.database.read() as connection:
            found, _ = await events.page(connection, where, 1, None)
        if not found:
            raise UnknownEvent(f"There is no event {event_id}.")
        return found[0]

    # -- snapshots

    async def snapshot(self, name: str, label: str, *, change: Change) -> NamespaceSnapshot:
        """Names this point of its history, for a rollback to come back to; a frozen namespace's
        too. Raises UnknownNamespace, DuplicateSnapshot."""
        label = storable(label)
        async with self._context.change() as connection:
            await find(connection, name)
            if await events.snapshot(connection, name, label) is not None:
                raise DuplicateSnapshot(name, label)
            await events.append(
                connection,
                self._context.clock(),
                name,
                events.SNAPSHOT,
                change,
                after={"label": label},
                key=events.snapshot_key(name, label),
            )
            made = await events.snapshot(connection, name, label)
            assert made is not None
        return _snapshot(made)

    async def snapshots(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """`NamespaceSnapshot`s, newest first. Raises UnknownNamespace, InvalidCursor."""
        before = paging.decode("snapshots", cursor)
        async with self._context.database.read() as connection:
            await find(connection, name)
            found, total = await events.snapshots(connection, name, limit + 1, before)
        shown = [(event.id, _snapshot(event)) for event in found]
        return paging.page("snapshots", shown, total, limit)

    # -- rollback

    async def plan_rollback(
        self, name: str, target: RollbackTarget, *, expected_last: int | None = None
    ) -> Rollback:
        """What `roll_back` would do now. Raises UnknownNamespace, UnknownEvent, PreviewOutdated."""
        async with self._context.database.read() as connection:
            plan, _ = await rollback.plan(
                connection, name, target, expected_last, self._context.clock()
            )
        return plan

    async def roll_back(
        self,
        name: str,
        target: RollbackTarget,
        vectors: Mapping[str, Vectors] | None = None,
        *,
        example_vectors: Mapping[str, Vector] | None = None,
        expected_last: int | None = None,
        change: Change,
    ) -> Rollback:
        """Gives every rule the text, trigger, domain, polarity, state and frequency it had after
        that event, and every example its words, label, trust, times and state; what came later is
        retired. A frozen namespace can be rolled back.

        `vectors` and `example_vectors`: those of `plan_rollback(...).unembedded` and
        `unembedded_examples` by id; what comes back without them is not found until
        `add_embeddings` brings them. `expected_last`:
        the `before_event` of the plan that was shown; where the namespace has a later event by now
        nothing is done.
        Raises UnknownNamespace, UnknownEvent, PreviewOutdated, InvalidVector.
        """
        units = {id: self._context.units(each) for id, each in (vectors or {}).items()}
        questions = {
            id: unit(each, self._context.caches.dimension)
            for id, each in (example_vectors or {}).items()
        }
        async with self._context.change() as connection:
            now = self._context.clock()
            plan, held = await rollback.plan(connection, name, target, expected_last, now)
            await rollback.carry_out(
                self._context, connection, plan, held, units, questions, change, now
            )
            done = await events.last_of(connection, name)
        return replace(plan, event=done)

    # -- numbers

    async def curve(self, name: str, *, points: int, hourly: bool = False) -> list[CurvePoint]:
        """The last `points` days (or hours) in UTC, the one under way included, oldest first.

        Raises UnknownNamespace.
        """
        step = timedelta(hours=1) if hourly else timedelta(days=1)
        now = self._context.clock()
        last = now.replace(minute=0, second=0, microsecond=0, hour=now.hour if hourly else 0)
        since, until = last - (points - 1) * step, last + step
        async with self._context.database.read() as connection:
            await find(connection, name)
            by_status = await events.episodes_over_time(
                connection, name, since, until, hourly=hourly
            )
            by_kind = await events.rule_events_over_time(
                connection, name, since, until, hourly=hourly
            )
        starts = [since + number * step for number in range(points)]
        return [
            _point(start, by_status.get(key, Counter()), by_kind.get(key, Counter()))
            for start in starts
            for key in [_key(start, hourly)]
        ]

    async def usage(self, rule_id: str, *, among: int = 2000) -> RuleUsage:
        """How often the rule was used on each of the last days, as far as the namespace's `among`
        latest episodes go back. Raises UnknownRule."""
        now = self._context.clock()
        first = now.date() - timedelta(days=DAYS - 1)
        since = datetime.combine(first, time(), UTC)
        async with self._context.database.read() as connection:
            rule = (await find_rule(connection, rule_id))[1]
            rows = await episodes.of_rule(connection, rule.namespace, rule_id, among, since)
        recent = [(at.date(), used) for at, used in rows]
        asked = Counter(day for day, _ in recent)
        uses = Counter(day for day, used in recent if used)
        days = [first + timedelta(days=number) for number in range(DAYS)]
        return RuleUsage(
            days=tuple(DailyUsage(day, asked[day], uses[day]) for day in days),
            looked_at=len(recent),
            uses=uses.total(),
        )


def _key(start: datetime, hourly: bool) -> tuple[int, ...]:
    day = (start.year, start.month, start.day)
    return (*day, start.hour) if hourly else day


def _point(start: datetime, by_status: Counter[str], by_kind: Counter[str]) -> CurvePoint:
    return CurvePoint(
        start=start,
        episodes=by_status.total(),
        learned=by_status[EpisodeStatus.LEARNED],
        rules_created=by_kind["rule.created"],
        rules_merged=by_kind[rule_writes.MERGED],
        rules_retired=by_kind["rule.retired"],
    )


def _snapshot(event: Event) -> NamespaceSnapshot:
    label = (event.after or {})["label"]
    return NamespaceSnapshot(event.id, label, event.at, event.actor, event.reason)
