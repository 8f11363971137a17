"""The append-only log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import clean
from rules_store.database.schema import events
from rules_store.models.events import Event

SYSTEM = "system"
POLICY = "policy"
LEARNER = "learner"
OF_NAMESPACES = "namespace."
NAMESPACE_DELETED = "namespace.deleted"
OF_KEYS = "key."
"""How the kinds of events about API keys begin."""


async def append(
    connection: AsyncConnection,
    at: datetime,
    namespace: str,
    kind: str,
    *,
    rule_id: str | None = None,
    actor: str,
    reason: str,
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
            actor=clean(actor),
            reason=clean(reason),
            before=before,
            after=after,
            key=key,
        )
    )


async def after(connection: AsyncConnection, event_id: int, limit: int) -> list[Event]:
    statement = select(events).where(events.c.id > event_id).order_by(events.c.id).limit(limit)
    return [event_of(row) for row in await connection.execute(statement)]


async def of_rule(connection: AsyncConnection, rule_id: str) -> list[Event]:
    statement = select(events).where(events.c.rule_id == rule_id).order_by(events.c.id)
    return [event_of(row) for row in await connection.execute(statement)]


async def page_of_rule(
    connection: AsyncConnection, rule_id: str, limit: int, before: int | None
) -> tuple[list[tuple[int, Event]], int]:
    """Up to `limit` events with an id below `before`, newest first; and the total."""
    own = events.c.rule_id == rule_id
    total = await connection.scalar(select(func.count()).select_from(events).where(own))
    statement = select(events).where(own).order_by(events.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(events.c.id < before)
    rows = await connection.execute(statement)
    return [(row.id, event_of(row)) for row in rows], total or 0


async def last_id(connection: AsyncConnection) -> int:
    return (await connection.scalar(select(func.max(events.c.id)))) or 0


async def mark(connection: AsyncConnection, event_id: int) -> str:
    """What tells this event from one of the same number in another life of the database."""
    if event_id == 0:
        return "none"
    statement = select(events.c.at, events.c.kind, events.c.rule_id).where(events.c.id == event_id)
    row = (await connection.execute(statement)).one_or_none()
    return "gone" if row is None else f"{row.at.isoformat()} {row.kind} {row.rule_id}"


def touched(found: Sequence[Event]) -> list[str]:
    """Ids of the rules that these events are about, each once."""
    ids: dict[str, None] = {}
    for event in found:
        if event.rule_id is not None:
            ids[event.rule_id] = None
        for rule_id in (event.after or {}).get("rules", []):
            ids[rule_id] = None
    return list(ids)


def event_of(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        at=row.at,
        namespace=row.namespace,
        kind=row.kind,
        rule_id=row.rule_id,
        actor=row.actor,
        reason=row.reason,
        before=row.before,
        after=row.after,
    )
