"""What a rule or an example has to do with episodes and with others of its kind."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, literal, or_, select
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


async def is_taught_by_others(connection: AsyncConnection, item_id: str, key_id: str) -> bool:
    """Whether any other key's request or feedback is a source of an item."""
    statement = select(literal(1)).where(
        links.c.item_id == item_id,
        links.c.kind == LinkKind.SOURCE.value,
        or_(links.c.key_id.is_(None), links.c.key_id != key_id),
    )
    return await connection.scalar(statement.limit(1)) is not None


async def take_back(connection: AsyncConnection, item_id: str, key_id: str) -> None:
    """The key is a source of the item no more."""
    await connection.execute(
        delete(links).where(
            links.c.item_id == item_id,
            links.c.kind == LinkKind.SOURCE.value,
            links.c.key_id == key_id,
        )
    )


async def contradicting(connection: AsyncConnection, rule_id: str) -> set[str]:
    """Ids of the rules that contradict this one, whichever of the two came first."""
    pair = links.c.kind == LinkKind.CONTRADICTS.value
    statement = select(links.c.item_id, links.c.other).where(
        pair, or_(links.c.item_id == rule_id, links.c.other == rule_id)
    )
    return {
        row.other if row.item_id == rule_id else row.item_id
        for row in await connection.execute(statement)
    }


async def opponents(connection: AsyncConnection, rule_id: str) -> list[str]:
    """Ids of active rules that contradict this one."""
    others = await contradicting(connection, rule_id)
    active = select(rules.c.id).where(rules.c.id.in_(others), rules.c.state == RuleState.ACTIVE)
    return sorted(await connection.scalars(active))
