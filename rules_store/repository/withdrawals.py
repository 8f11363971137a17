"""Taking back what a key has said: each function one bounded portion of it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_unless_there
from rules_store.database.schema import (
    choices,
    examples,
    exposures,
    feedback,
    jobs,
    links,
    outcomes,
    precedents,
    rules,
    trials,
    withdrawals,
    withdrawn_items,
)
from rules_store.models.evidence import LinkKind, Outcome
from rules_store.models.jobs import JobKind, JobState
from rules_store.models.keys import Withdrawal

PORTION = 100
"""Rows that one transaction takes back."""


# -- the withdrawal itself


async def find(connection: AsyncConnection, key_id: str) -> Withdrawal | None:
    statement = select(withdrawals).where(withdrawals.c.key_id == key_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Withdrawal(row.key_id, row.begun_at, row.ended_at, row.counts)


async def put(connection: AsyncConnection, new: Withdrawal) -> None:
    await connection.execute(delete(withdrawals).where(withdrawals.c.key_id == new.key_id))
    await connection.execute(
        insert(withdrawals).values(
            key_id=new.key_id, begun_at=new.begun_at, ended_at=new.ended_at, counts=new.counts
        )
    )


async def await_judgement(
    connection: AsyncConnection, key_id: str, item_ids: Collection[str]
) -> None:
    """These rules and examples are to be judged anew before the withdrawal ends."""
    rows = [{"key_id": key_id, "item_id": item_id} for item_id in sorted(item_ids)]
    if rows:
        await connection.execute(insert_unless_there(connection, withdrawn_items), rows)


async def awaiting(connection: AsyncConnection, key_id: str, after: str) -> list[str]:
    """Some of the items that are to be judged, in order, behind `after`."""
    mine = withdrawn_items.c.key_id == key_id
    statement = select(withdrawn_items.c.item_id).where(mine, withdrawn_items.c.item_id > after)
    ordered = statement.order_by(withdrawn_items.c.item_id).limit(PORTION)
    return list(await connection.scalars(ordered))


async def judged(connection: AsyncConnection, key_id: str, item_id: str) -> None:
    await connection.execute(
        delete(withdrawn_items).where(
            withdrawn_items.c.key_id == key_id, withdrawn_items.c.item_id == item_id
        )
    )


# -- its portions


async def end_jobs(
    connection: AsyncConnection, key_id: str, why: str, at: datetime
) -> list[tuple[JobKind, str]]:
    """Fails jobs that are not done yet; kind and episode of each. Who runs one has lost it."""
    mine = (
        select(jobs.c.id)
        .where(jobs.c.key_id == key_id, jobs.c.state.in_([JobState.PENDING, JobState.RUNNING]))
        .limit(PORTION)
    )
    ended = await connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(mine))
        .values(state=JobState.FAILED, last_error=why, owner=None, lease_until=None, updated_at=at)
        .returning(jobs.c.kind, jobs.c.episode_id)
    )
    return [(JobKind(row.kind), row.episode_id) for row in ended]


async def take_feedback(connection: AsyncConnection, key_id: str) -> tuple[int, set[str]]:
    """How many were deleted, and the examples that they made or retired."""
    mine = feedback.c.key_id == key_id
    rows = await _some(connection, feedback, feedback.c.seq, mine)
    touched: set[str] = set()
    for row in rows:
        effect = row.effect or {}
        touched.update(effect.get("retired", ()))
        if effect.get("example"):
            touched.add(effect["example"])
    await _delete(connection, feedback, feedback.c.seq, [row.seq for row in rows])
    return len(rows), touched


async def take_outcomes(
    connection: AsyncConnection, key_id: str
) -> tuple[int, set[str], set[str], set[str]]:
    """How many were deleted, of which episodes and namespaces, and the items that steered them."""
    found = (
        select(outcomes.c.episode_id, outcomes.c.namespace)
        .where(outcomes.c.key_id == key_id)
        .order_by(outcomes.c.episode_id, outcomes.c.source)
        .limit(PORTION)
    )
    rows = (await connection.execute(found)).all()
    ids = {row.episode_id for row in rows}
    if not rows:
        return 0, set(), set(), set()
    gone = await connection.execute(
        delete(outcomes).where(outcomes.c.key_id == key_id, outcomes.c.episode_id.in_(ids))
    )
    items = await connection.scalars(
        select(exposures.c.item_id).where(exposures.c.episode_id.in_(ids)).distinct()
    )
    return gone.rowcount, ids, {row.namespace for row in rows}, set(items)


async def take_exposures(
    connection: AsyncConnection, key_id: str, seqs: Collection[int]
) -> tuple[int, set[str]]:
    """Deletes these exposures of the key's own requests; their items, whose counts go down."""
    rows = (
        await connection.execute(
            delete(exposures)
            .where(exposures.c.key_id == key_id, exposures.c.seq.in_(seqs))
            .returning(exposures.c.item_id, exposures.c.counted, exposures.c.withheld)
        )
    ).all()
    shown: dict[str, int] = {}
    for row in rows:
        if row.counted and not row.withheld:
            shown[row.item_id] = shown.get(row.item_id, 0) + 1
    for item_id in sorted(shown):
        for items in (rules, examples):
            left = items.c.exposures - shown[item_id]
            await connection.execute(
                update(items).where(items.c.id == item_id).values(exposures=left)
            )
    return len(rows), {row.item_id for row in rows}


async def exposures_after(connection: AsyncConnection, key_id: str, seq: int) -> list[int]:
    """Numbers of the next exposures of the key's requests, or of votes by it; without an index, so
    in a transaction that keeps no writer waiting."""
    statement = (
        select(exposures.c.seq)
        .where(
            exposures.c.seq > seq,
            or_(exposures.c.key_id == key_id, exposures.c.vote_key_id == key_id),
        )
        .order_by(exposures.c.seq)
        .limit(PORTION)
    )
    return list(await connection.scalars(statement))


async def take_votes(
    connection: AsyncConnection, key_id: str, seqs: Collection[int]
) -> tuple[int, set[str]]:
    """Takes the key's votes off these exposures; their examples."""
    rows = (
        await connection.execute(
            update(exposures)
            .where(exposures.c.vote_key_id == key_id, exposures.c.seq.in_(seqs))
            .values(vote=None, vote_key_id=None)
            .returning(exposures.c.item_id)
        )
    ).all()
    return len(rows), {row.item_id for row in rows}


async def rule_with_trials(connection: AsyncConnection, key_id: str) -> str | None:
    """A rule that was tried on the key's questions or labels."""
    mine = select(trials.c.rule_id).where(trials.c.key_id == key_id).limit(1)
    return await connection.scalar(mine)


async def take_trials(connection: AsyncConnection, key_id: str, rule_id: str) -> int:
    """Deletes the trials of one rule on the key's questions and labels."""
    gone = await connection.execute(
        delete(trials).where(trials.c.key_id == key_id, trials.c.rule_id == rule_id)
    )
    return gone.rowcount


async def take_precedents(connection: AsyncConnection, key_id: str) -> int:
    """Deletes explored questions that the key asked or labelled."""
    mine = or_(precedents.c.key_id == key_id, precedents.c.label_key_id == key_id)
    rows = await _some(connection, precedents, precedents.c.seq, mine)
    return await _delete(connection, precedents, precedents.c.seq, [row.seq for row in rows])


async def take_choices(connection: AsyncConnection, key_id: str) -> int:
    """Deletes what became of the key's own requests."""
    rows = await _some(connection, choices, choices.c.seq, choices.c.key_id == key_id)
    return await _delete(connection, choices, choices.c.seq, [row.seq for row in rows])


async def correct_choice(
    connection: AsyncConnection, episode_id: str, strongest: Outcome | None, at: datetime
) -> None:
    """What became of another key's request, once an outcome of it was taken back."""
    own = choices.c.episode_id == episode_id
    if strongest is None:
        await connection.execute(delete(choices).where(own))
        return
    values = {"value": strongest.value, "weight": strongest.weight, "updated_at": at}
    await connection.execute(update(choices).where(own).values(values))


async def take_links(connection: AsyncConnection, key_id: str) -> tuple[int, dict[str, int]]:
    """Deletes links to what the key has taught with; how many of each item."""
    mine = (links.c.key_id == key_id) & (links.c.kind == LinkKind.SOURCE.value)
    rows = await _some(connection, links, links.c.seq, mine)
    items: dict[str, int] = {}
    for row in rows:
        items[row.item_id] = items.get(row.item_id, 0) + 1
    for item_id in sorted(items):
        # Each time that it was taught again had added one; that it is there is one as well.
        fewer = rules.c.frequency - items[item_id]
        await connection.execute(
            update(rules)
            .where(rules.c.id == item_id, rules.c.frequency > items[item_id])
            .values(frequency=fewer)
        )
    await _delete(connection, links, links.c.seq, [row.seq for row in rows])
    return len(rows), items


async def is_taught(connection: AsyncConnection, item_id: str) -> bool:
    """Whether any source of a learned rule or example is left."""
    own = (links.c.item_id == item_id) & (links.c.kind == LinkKind.SOURCE.value)
    return bool(await connection.scalar(select(func.count()).select_from(links).where(own)))


async def _some(
    connection: AsyncConnection, table: Table, order: ColumnElement[Any], mine: ColumnElement[bool]
) -> list[Any]:
    found = await connection.execute(select(table).where(mine).order_by(order).limit(PORTION))
    return list(found)


async def _delete(
    connection: AsyncConnection, table: Table, order: ColumnElement[Any], seqs: Collection[int]
) -> int:
    if seqs:
        await connection.execute(delete(table).where(order.in_(seqs)))
    return len(seqs)
