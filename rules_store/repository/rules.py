"""Rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    ColumnElement,
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

from rules_store.database.dialect import contains
from rules_store.database.json_codec import storable
from rules_store.database.schema import events, identity, rules
from rules_store.models.paging import Position
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleSort, RuleState
from rules_store.repository.events import made_by_learning
from rules_store.repository.orders import lifted, orders

_ORDERS = orders(rules)
_LEARNED = made_by_learning(events.c.rule_id, rules.c.id, "rule.created")


async def identity_of_store(connection: AsyncConnection) -> str:
    return str(await connection.scalar(select(identity.c.id)))


async def touch(connection: AsyncConnection) -> None:
    """Writes what is there already."""
    await connection.execute(update(identity).values(id=identity.c.id))


async def find(connection: AsyncConnection, rule_id: str) -> tuple[int, Rule] | None:
    """The rule and its sequence number."""
    row = (await connection.execute(select(rules).where(rules.c.id == rule_id))).one_or_none()
    return None if row is None else (row.seq, rule_of(row))


async def find_by_seq(connection: AsyncConnection, seq: int) -> Rule | None:
    row = (await connection.execute(select(rules).where(rules.c.seq == seq))).one_or_none()
    return None if row is None else rule_of(row)


async def find_by_text(
    connection: AsyncConnection, namespace: str, polarity: Polarity, text_hash: str
) -> tuple[int, Rule] | None:
    statement = select(rules).where(
        rules.c.namespace == namespace,
        rules.c.polarity == polarity,
        rules.c.text_hash == text_hash,
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else (row.seq, rule_of(row))


async def insert_rule(connection: AsyncConnection, rule: Rule, text_hash: str) -> int:
    """Its sequence number. Raises IntegrityError when the same text is there."""
    result = await connection.execute(
        insert(rules).values(
            id=rule.id,
            namespace=rule.namespace,
            polarity=rule.polarity,
            state=rule.state,
            text=rule.text,
            trigger=rule.trigger,
            domain=rule.domain,
            frequency=rule.frequency,
            exposures=rule.exposures,
            source_episode=rule.source_episode,
            version=rule.version,
            reason=rule.reason,
            text_hash=text_hash,
            created_at=rule.created_at,
            updated_at=rule.updated_at,
            written_by=rule.written_by,
        )
    )
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


async def update_rule(connection: AsyncConnection, rule: Rule, text_hash: str) -> None:
    """Writes what can change of a rule; exposures only `evidence.count_exposures` counts."""
    await connection.execute(
        update(rules)
        .where(rules.c.id == rule.id)
        .values(
            state=rule.state,
            text=rule.text,
            trigger=rule.trigger,
            domain=rule.domain,
            frequency=rule.frequency,
            version=rule.version,
            reason=rule.reason,
            text_hash=text_hash,
            updated_at=rule.updated_at,
        )
    )


async def page(
    connection: AsyncConnection,
    where: RuleFilter,
    limit: int,
    after: Position | None = None,
    sort: RuleSort = RuleSort.NEWEST,
) -> tuple[list[tuple[Position, Rule]], int]:
    """Up to `limit` rules that come after a place in this order; and the total."""
    condition = and_(true(), *conditions(where, connection.dialect.name))
    order = _ORDERS[sort]
    # Found first by number: sorting whole rows would copy every one of them.
    found = select(rules.c.seq).where(condition).order_by(*order.by).limit(limit)
    if after is not None:
        found = found.where(order.after(after))
    seqs = list(await connection.scalars(found))
    # Words that few rules hold are looked for once, not once more to count them.
    alone = after is None and len(seqs) < limit
    total = len(seqs) if alone else await count(connection, condition)
    rows = await connection.execute(select(rules).where(rules.c.seq.in_(seqs)).order_by(*order.by))
    return [(order.place(row), rule_of(row)) for row in rows], total


async def count(connection: AsyncConnection, condition: ColumnElement[bool]) -> int:
    return await connection.scalar(select(func.count()).select_from(rules).where(condition)) or 0


def conditions(where: RuleFilter, dialect: str) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (rules.c.namespace, where.namespace),
        (rules.c.polarity, where.polarity),
        (rules.c.state, where.state),
        (rules.c.domain, where.domain),
        (rules.c.source_episode, where.source_episode),
        (rules.c.written_by, where.written_by),
    ):
        if value is not None:
            yield column == value
    for column, least, most in (
        (rules.c.exposures, where.min_exposures, where.max_exposures),
        (rules.c.frequency, where.min_frequency, None),
    ):
        if least is not None:
            yield column >= least
        if most is not None:
            yield column <= most
    if where.min_lift is not None or where.max_lift is not None:
        yield rules.c.id.in_(lifted(where.namespace, where.min_lift, where.max_lift))
    if where.created_after is not None:
        yield rules.c.created_at >= where.created_after
    if where.created_before is not None:
        yield rules.c.created_at < where.created_before
    if where.namespaces is not None:
        yield rules.c.namespace.in_(sorted(where.namespaces))
    if where.text:
        part = storable(where.text)
        yield or_(contains(dialect, rules.c.text, part), contains(dialect, rules.c.trigger, part))


async def count_active(connection: AsyncConnection, namespace: str) -> int:
    statement = (
        select(func.count())
        .select_from(rules)
        .where(rules.c.namespace == namespace, rules.c.state == RuleState.ACTIVE)
    )
    return await connection.scalar(statement) or 0


async def active(connection: AsyncConnection, namespace: str) -> list[tuple[int, Polarity, int]]:
    """(seq, polarity, frequency) of the active rules."""
    statement = select(rules.c.seq, rules.c.polarity, rules.c.frequency).where(
        rules.c.namespace == namespace, rules.c.state == RuleState.ACTIVE
    )
    rows = await connection.execute(statement)
    return [(row.seq, Polarity(row.polarity), row.frequency) for row in rows]


async def learned(connection: AsyncConnection, namespace: str) -> set[int]:
    """Sequence numbers of the active rules that learning has made, and no person."""
    statement = select(rules.c.seq).where(
        rules.c.namespace == namespace, rules.c.state == RuleState.ACTIVE, _LEARNED
    )
    return set(await connection.scalars(statement))


async def candidates_beyond(connection: AsyncConnection, namespace: str, room: int) -> list[int]:
    """Sequence numbers of the candidates that are too many, the oldest first; learned ones before
    those that people wrote."""
    statement = (
        select(rules.c.seq)
        .where(rules.c.namespace == namespace, rules.c.state == RuleState.CANDIDATE)
        .order_by(_LEARNED, rules.c.seq.desc())
        .offset(room)
    )
    return sorted(await connection.scalars(statement))


async def counts(connection: AsyncConnection) -> list[tuple[str, str, str, int]]:
    """(namespace, polarity, state, rules)."""
    columns = (rules.c.namespace, rules.c.polarity, rules.c.state)
    rows = await connection.execute(select(*columns, func.count()).group_by(*columns))
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def rule_of(row: Row[Any]) -> Rule:
    return Rule(
        id=row.id,
        namespace=row.namespace,
        polarity=Polarity(row.polarity),
        state=RuleState(row.state),
        text=row.text,
        trigger=row.trigger,
        domain=row.domain,
        frequency=row.frequency,
        exposures=row.exposures,
        source_episode=row.source_episode,
        version=row.version,
        reason=row.reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
        written_by=row.written_by,
    )
