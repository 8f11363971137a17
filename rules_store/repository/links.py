"""What a rule or an example has to do with episodes and with others of its kind."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_unless_there
from rules_store.database.schema import links, rules
from rules_store.models.evidence import Link, LinkKind
from rules_store.models.rules import RuleState


async def add(
    connection: AsyncConnection,
    namespace: str,
    item_id: str,
    kind: LinkKind,
    other: str,
    at: datetime,
    key_id: str | None = None,
) -> None:
    """Once, however often it is said. `key_id`: whose request or feedback it was."""
    values = {
        "namespace": namespace,
        "item_id": item_id,
        "kind": kind.value,
        "other": other,
        "created_at": at,
        "key_id": key_id,
    }
    await connection.execute(insert_unless_there(connection, links), values)


async def of_item(connection: AsyncConnection, item_id: str) -> list[Link]:
    """Oldest first."""
    statement = select(links).where(links.c.item_id == item_id).order_by(links.c.seq)
    return [
        Link(row.item_id, LinkKind(row.kind), row.other, row.created_at)
        for row in await connection.execute(statement)
    ]


async def items_of(connection: AsyncConnection, kind: LinkKind, other: str) -> list[str]:
    """Ids of the rules and examples that are linked so, oldest first."""
    statement = select(links.c.item_id).where(links.c.kind == kind.value, links.c.other == other)
    return list(await connection.scalars(statement.order_by(links.c.seq)))


async def opponents(connection: AsyncConnection, rule_id: str) -> list[str]:
    """Ids of active rules that contradict this one, whichever of the two came first."""
    pair = links.c.kind == LinkKind.CONTRADICTS.value
    statement = select(links.c.item_id, links.c.other).where(
        pair, or_(links.c.item_id == rule_id, links.c.other == rule_id)
    )
    others = {
        row.other if row.item_id == rule_id else row.item_id
        for row in await connection.execute(statement)
    }
    active = select(rules.c.id).where(rules.c.id.in_(others), rules.c.state == RuleState.ACTIVE)
    return sorted(await connection.scalars(active))
