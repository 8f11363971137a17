"""What evidence adds up to for each rule and example."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import false, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_or_replace
from rules_store.database.schema import examples, rules, standings
from rules_store.models.evidence import Contender, Standing
from rules_store.models.rules import Rule, RuleState
from rules_store.policy.gate import Verdict
from rules_store.policy.lift import Lift, Tally
from rules_store.repository.evidence import trials_of
from rules_store.repository.rules import rule_of


async def find(connection: AsyncConnection, item_id: str, *, lock: bool = False) -> Standing | None:
    """`lock`: until the end of the transaction nobody else changes it, where the database locks
    rows."""
    statement = select(standings).where(standings.c.item_id == item_id)
    if lock:
        for items in (rules, examples):
            mine = select(items.c.seq).where(items.c.id == item_id).with_for_update()
            if await connection.scalar(mine) is not None:
                break
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _standing(row)


async def some(connection: AsyncConnection, rule_ids: Collection[str]) -> dict[str, Standing]:
    rows = await connection.execute(select(standings).where(standings.c.item_id.in_(rule_ids)))
    return {row.item_id: _standing(row) for row in rows}


async def since(connection: AsyncConnection, since: datetime | None) -> list[Standing]:
    """Those that changed at or after a moment; all for None."""
    statement = select(standings)
    if since is not None:
        statement = statement.where(standings.c.at >= since)
    return [_standing(row) for row in await connection.execute(statement)]


async def put(connection: AsyncConnection, new: Standing) -> None:
    await put_all(connection, [new])


async def put_all(connection: AsyncConnection, new: Sequence[Standing]) -> None:
    if new:
        rows = [_values(each) for each in new]
        replaced = [name for name in rows[0] if name != "item_id"]
        await connection.execute(insert_or_replace(connection, standings, *replaced), rows)


async def vouch(connection: AsyncConnection, rule: Rule, at: datetime) -> None:
    """Somebody wants this very rule to be active: it need not prove itself first. What its use
    shows counts all the same."""
    known = await find(connection, rule.id, lock=True)
    if known is None:
        seq = await connection.scalar(select(rules.c.seq).where(rules.c.id == rule.id))
        assert seq is not None, "the rule was written in this transaction"
        known = Standing(rule.id, seq, rule.namespace, at)
    await put(
        connection, replace(known, at=at, helped=0, harmed=0, tried=0, proven=True, verdict=None)
    )


async def restart(connection: AsyncConnection, item_id: str, text_hash: str, at: datetime) -> None:
    """The standing of a rule or an example that has other words now: what trials of these words
    say."""
    known = await find(connection, item_id, lock=True)
    if known is None:
        return
    fresh = Standing(item_id, known.seq, known.namespace, at)
    for trial in await trials_of(connection, item_id, text_hash):
        fresh = fresh.tried_on(trial)
    await put(connection, fresh)


async def contenders(
    connection: AsyncConnection, namespace: str, states: Iterable[RuleState], limit: int
) -> list[Contender]:
    """Rules of these states that the gate has not let through, the least tried first, of equals
    the oldest."""
    statement = (
        select(rules)
        .join_from(rules, standings, standings.c.item_id == rules.c.id, isouter=True)
        .where(
            rules.c.namespace == namespace,
            rules.c.state.in_([state.value for state in states]),
            func.coalesce(standings.c.proven, false()).is_(False),
        )
        .order_by(func.coalesce(standings.c.tried, 0), rules.c.seq)
        .limit(limit)
    )
    found = [rule_of(row) for row in await connection.execute(statement)]
    known = await some(connection, [rule.id for rule in found])
    return [Contender(rule, known.get(rule.id)) for rule in found]


async def losers(connection: AsyncConnection, namespace: str) -> list[str]:
    """Ids of active rules whose lift is below zero with its whole interval."""
    statement = (
        select(rules.c.id)
        .join_from(rules, standings, standings.c.item_id == rules.c.id)
        .where(
            rules.c.namespace == namespace,
            rules.c.state == RuleState.ACTIVE,
            standings.c.lift_high < 0,
        )
        .order_by(rules.c.seq)
    )
    return list(await connection.scalars(statement))


async def unproven_since(
    connection: AsyncConnection, namespace: str, least_exposures: int
) -> list[str]:
    """Ids of active rules that the gate has not let through and that have been injected at least
    so many times in all."""
    statement = (
        select(rules.c.id)
        .join_from(rules, standings, standings.c.item_id == rules.c.id, isouter=True)
        .where(
            rules.c.namespace == namespace,
            rules.c.state == RuleState.ACTIVE,
            rules.c.exposures >= least_exposures,
            func.coalesce(standings.c.proven, false()).is_(False),
        )
        .order_by(rules.c.seq)
    )
    return list(await connection.scalars(statement))


def _values(new: Standing) -> dict[str, Any]:
    return {
        "item_id": new.item_id,
        "item_seq": new.seq,
        "namespace": new.namespace,
        "at": new.at,
        "with_hits": new.with_rule.hits,
        "with_misses": new.with_rule.misses,
        "without_hits": new.without_rule.hits,
        "without_misses": new.without_rule.misses,
        "helped": new.helped,
        "harmed": new.harmed,
        "tried": new.tried,
        "proven": new.proven,
        "verdict": new.verdict,
        "lift": new.lift.mean,
        "lift_low": new.lift.low,
        "lift_high": new.lift.high,
    }


def _standing(row: Any) -> Standing:
    return Standing(
        item_id=row.item_id,
        seq=row.item_seq,
        namespace=row.namespace,
        at=row.at,
        with_rule=Tally(row.with_hits, row.with_misses),
        without_rule=Tally(row.without_hits, row.without_misses),
        helped=row.helped,
        harmed=row.harmed,
        tried=row.tried,
        proven=row.proven,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        lift=Lift(row.lift, row.lift_low, row.lift_high),
    )
