"""The append-only log, also as history: snapshots, rules as of an event, numbers over time. Only
words of clients that may not be kept any longer are taken out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Exists,
    Row,
    and_,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import utc_parts
from rules_store.database.json_codec import storable
from rules_store.database.schema import episodes, events
from rules_store.models.events import GATE as GATE
from rules_store.models.events import LEARNER as LEARNER
from rules_store.models.events import POLICY as POLICY
from rules_store.models.events import SYSTEM as SYSTEM
from rules_store.models.events import Change, Event, EventFilter

OF_NAMESPACES = "namespace."
NAMESPACE_DELETED = "namespace.deleted"
KEY_WITHDRAWN = "key.withdrawn"
OF_KEYS = "key."
"""How the kinds of events about API keys begin."""


def made_by_learning(event_item: ColumnElement[Any], item: ColumnElement[Any], kind: str) -> Exists:
    """Whether learning made a rule or an example: its id in the log and in its own table, and the
    kind of the event that says so."""
    by_learning = (event_item == item, events.c.kind == kind, events.c.actor == LEARNER)
    return select(events.c.id).where(*by_learning).exists()


async def append(
    connection: AsyncConnection,
    at: datetime,
    namespace: str,
    kind: str,
    change: Change,
    *,
    rule_id: str | None = None,
    example_id: str | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    key: str | None = None,
) -> None:
    """Raises IntegrityError when an event with this `key` is there."""
    await connection.execute(
        insert(events).values(
            at=at,
            namespace=namespace,
            kind=kind,
            rule_id=rule_id,
            example_id=example_id,
            actor=storable(change.actor),
            reason=storable(change.reason),
            before=before,
            after=after,
            key=key,
            key_id=change.key_id,
        )
    )


async def after(connection: AsyncConnection, event_id: int, limit: int) -> list[Event]:
    statement = select(events).where(events.c.id > event_id).order_by(events.c.id).limit(limit)
    return [event_of(row) for row in await connection.execute(statement)]


async def of_rule(connection: AsyncConnection, rule_id: str) -> list[Event]:
    statement = select(events).where(events.c.rule_id == rule_id).order_by(events.c.id)
    return [event_of(row) for row in await connection.execute(statement)]


async def of_item(connection: AsyncConnection, item_id: str) -> list[Event]:
    """Of a rule or an example, oldest first."""
    own = or_(events.c.rule_id == item_id, events.c.example_id == item_id)
    return [
        event_of(row)
        for row in await connection.execute(select(events).where(own).order_by(events.c.id))
    ]


async def last_of_example(connection: AsyncConnection, example_id: str, kind: str) -> Event | None:
    """The latest event of this kind about an example."""
    own = and_(events.c.example_id == example_id, events.c.kind == kind)
    statement = select(events).where(own).order_by(events.c.id.desc()).limit(1)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else event_of(row)


async def last_id(connection: AsyncConnection) -> int:
    return (await connection.scalar(select(func.max(events.c.id)))) or 0


async def mark(connection: AsyncConnection, event_id: int) -> str:
    """What tells this event from one of the same number in a database that was made anew."""
    if event_id == 0:
        return "none"
    statement = select(events.c.at, events.c.kind, events.c.rule_id).where(events.c.id == event_id)
    row = (await connection.execute(statement)).one_or_none()
    return "gone" if row is None else f"{row.at.isoformat()} {row.kind} {row.rule_id}"


def touched(found: Sequence[Event]) -> list[str]:
    """Ids of the rules that these events are about, each once."""
    return _each_once((event.rule_id, (event.after or {}).get("rules")) for event in found)


def touched_examples(found: Sequence[Event]) -> list[str]:
    """Ids of the examples that these events are about, each once."""
    return _each_once((event.example_id, (event.after or {}).get("examples")) for event in found)


def _each_once(named: Iterable[tuple[str | None, Sequence[str] | None]]) -> list[str]:
    ids: dict[str, None] = {}
    for one, several in named:
        if one is not None:
            ids[one] = None
        ids.update(dict.fromkeys(several or ()))
    return list(ids)


def event_of(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        at=row.at,
        namespace=row.namespace,
        kind=row.kind,
        rule_id=row.rule_id,
        example_id=row.example_id,
        actor=row.actor,
        reason=row.reason,
        before=row.before,
        after=row.after,
        key_id=row.key_id,
    )


SNAPSHOT = "namespace.snapshot"


_OF_RULES = "rule."
_OF_EXAMPLES = "example."


_LARGEST = 2**31 - 1


async def page(
    connection: AsyncConnection, where: EventFilter, limit: int, before: int | None
) -> tuple[list[Event], int]:
    """Up to `limit` events with an id below `before`, newest first; and the total."""
    return await _page(connection, and_(true(), *_conditions(where)), limit, before)


async def _page(
    connection: AsyncConnection, condition: ColumnElement[bool], limit: int, before: int | None
) -> tuple[list[Event], int]:
    total = await connection.scalar(select(func.count()).select_from(events).where(condition))
    statement = select(events).where(condition).order_by(events.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(events.c.id < before)
    return [event_of(row) for row in await connection.execute(statement)], total or 0


def _conditions(where: EventFilter) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (events.c.namespace, where.namespace),
        (events.c.rule_id, where.rule_id),
        (events.c.example_id, where.example_id),
        (events.c.actor, where.actor),
    ):
        if value is not None:
            yield column == value
    if where.within is not None:
        yield events.c.namespace.in_(where.within)
    if where.kind is not None:
        if where.kind.endswith("."):
            yield events.c.kind.startswith(where.kind, autoescape=True)
        else:
            yield events.c.kind == where.kind
    if where.since_event is not None:
        yield events.c.id >= min(where.since_event, _LARGEST)
    if where.until_event is not None:
        yield events.c.id <= min(where.until_event, _LARGEST)
    if where.since is not None:
        yield events.c.at >= where.since
    if where.until is not None:
        yield events.c.at <= where.until


def snapshot_key(namespace: str, label: str) -> str:
    return f"snapshot:{namespace}:{label}"


async def snapshot(connection: AsyncConnection, namespace: str, label: str) -> Event | None:
    statement = select(events).where(events.c.key == snapshot_key(namespace, label))
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else event_of(row)


async def snapshots(
    connection: AsyncConnection, namespace: str, limit: int, before: int | None
) -> tuple[list[Event], int]:
    """As `page`."""
    condition = and_(events.c.namespace == namespace, events.c.kind == SNAPSHOT)
    return await _page(connection, condition, limit, before)


async def last_of(
    connection: AsyncConnection,
    namespace: str,
    *,
    at: datetime | None = None,
    id: int | None = None,
) -> int | None:
    """Number of the namespace's last event, or of its last one up to `at`, or of the very one
    with this `id`; None when there is none."""
    statement = select(func.max(events.c.id)).where(events.c.namespace == namespace)
    if at is not None:
        statement = statement.where(events.c.at <= at)
    if id is not None:
        statement = statement.where(events.c.id == min(id, _LARGEST))
    found: int | None = await connection.scalar(statement)
    return found


async def rules_as_of(
    connection: AsyncConnection, namespace: str, event_id: int
) -> dict[str, dict[str, Any] | None]:
    """Id -> the rule as it was after this event, None where it was not there yet; of every rule
    that has changed since."""
    return await _as_of(connection, namespace, event_id, events.c.rule_id, _OF_RULES)


async def examples_as_of(
    connection: AsyncConnection, namespace: str, event_id: int
) -> dict[str, dict[str, Any] | None]:
    """The same of examples."""
    return await _as_of(connection, namespace, event_id, events.c.example_id, _OF_EXAMPLES)


async def _as_of(
    connection: AsyncConnection,
    namespace: str,
    event_id: int,
    item: Column[str],
    kinds: str,
) -> dict[str, dict[str, Any] | None]:
    own = and_(
        events.c.namespace == namespace,
        item.is_not(None),
        events.c.kind.startswith(kinds),
        events.c.after.is_not(None),
    )
    changed = select(item).where(own, events.c.id > event_id).distinct()
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(await connection.scalars(changed))
    latest = (
        select(func.max(events.c.id))
        .where(own, events.c.id <= event_id, item.in_(changed))
        .group_by(item)
    )
    then = select(item, events.c.after).where(events.c.id.in_(latest))
    for id, after in await connection.execute(then):
        found[id] = after
    return found


async def append_many(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Events with the same columns, in this order. Raises IntegrityError when an event with one of
    their keys is there."""
    if rows:
        await connection.execute(insert(events), rows)


async def forget_examples(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """Takes what the events about these examples say of them, before and after, out of the log.
    That something happened, when, by whom and why stays."""
    statement = update(events).where(events.c.example_id.in_(ids))
    await connection.execute(statement.values(before=None, after=None))


async def episodes_over_time(
    connection: AsyncConnection, namespace: str, since: datetime, until: datetime, *, hourly: bool
) -> dict[tuple[int, ...], Counter[str]]:
    """(year, month, day[, hour]) in UTC -> status -> episodes that began then."""
    return await _over_time(
        connection,
        episodes.c.created_at,
        episodes.c.status,
        episodes.c.namespace == namespace,
        since,
        until,
        hourly,
    )


async def rule_events_over_time(
    connection: AsyncConnection, namespace: str, since: datetime, until: datetime, *, hourly: bool
) -> dict[tuple[int, ...], Counter[str]]:
    """The same: kind -> events about rules."""
    own = and_(events.c.namespace == namespace, events.c.kind.startswith(_OF_RULES))
    return await _over_time(connection, events.c.at, events.c.kind, own, since, until, hourly)


async def _over_time(
    connection: AsyncConnection,
    moment: Column[Any],
    what: Column[Any],
    condition: ColumnElement[bool],
    since: datetime,
    until: datetime,
    hourly: bool,
) -> dict[tuple[int, ...], Counter[str]]:
    parts = utc_parts(connection, moment, hourly=hourly)
    statement = (
        select(*parts, what, func.count())
        .where(condition, moment >= since, moment < until)
        .group_by(*parts, what)
    )
    found: dict[tuple[int, ...], Counter[str]] = {}
    for row in await connection.execute(statement):
        *when, value, count = row
        found.setdefault(tuple(int(part) for part in when), Counter())[value] += count
    return found
