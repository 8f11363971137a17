"""Exposures, outcomes, trials and standings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, false, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import insert_unless_there
from rules_store.evidence import (
    STRENGTH,
    Contender,
    Exposure,
    ExposureRecord,
    Outcome,
    Reference,
    Signal,
    Standing,
    Trial,
)
from rules_store.gate import Verdict
from rules_store.repository.rules import rule_of
from rules_store.tables import episodes, exposures, outcomes, rules, standings, trials
from rules_store.types import Rule, RuleState
from rules_store.upsert import insert_or_replace
from rules_store.worth import NOTHING, Lift, Tally, lift

_EXPOSE = insert(exposures)
_EXPOSED = (
    select(exposures.c.rule_id, exposures.c.withheld, exposures.c.created_at)
    .where(exposures.c.episode_id == bindparam("episode"))
    .order_by(exposures.c.rule_id)  # the order in which their standings are locked
)
_OUTCOMES = select(outcomes).where(outcomes.c.episode_id == bindparam("episode"))


# -- exposures and outcomes


async def add_exposures(
    connection: AsyncConnection,
    namespace: str,
    episode_id: str,
    new: Sequence[Exposure],
    at: datetime,
) -> None:
    if new:
        await connection.execute(
            _EXPOSE,
            [
                {
                    "namespace": namespace,
                    "episode_id": episode_id,
                    "rule_id": each.rule_id,
                    "position": each.position,
                    "similarity": each.similarity,
                    "score": each.score,
                    "withheld": each.withheld,
                    "created_at": at,
                }
                for each in new
            ],
        )


async def exposed(connection: AsyncConnection, episode_id: str) -> list[tuple[str, bool, datetime]]:
    """(rule id, withheld, when) of every rule that had to do with an episode."""
    rows = await connection.execute(_EXPOSED, {"episode": episode_id})
    return [(row.rule_id, row.withheld, row.created_at) for row in rows]


async def strongest(
    connection: AsyncConnection, episode_id: str, *, lock: bool = False
) -> Outcome | None:
    """The outcome of the strongest signal that an episode has. `lock`: until the end of the
    transaction nobody else brings one, where the database locks rows."""
    if lock:
        mine = select(episodes.c.seq).where(episodes.c.id == episode_id)
        await connection.execute(mine.with_for_update())
    rows = await connection.execute(_OUTCOMES, {"episode": episode_id})
    found = [Outcome(Signal(row.source), row.value) for row in rows]
    return max(found, key=lambda outcome: STRENGTH[outcome.source], default=None)


async def put_outcome(
    connection: AsyncConnection, namespace: str, episode_id: str, outcome: Outcome, at: datetime
) -> None:
    """In place of the same signal's earlier one."""
    await connection.execute(
        insert_or_replace(connection, outcomes, "value", "weight", "created_at"),
        {
            "episode_id": episode_id,
            "source": outcome.source.value,
            "namespace": namespace,
            "value": outcome.value,
            "weight": outcome.weight,
            "created_at": at,
        },
    )


async def exposures_of(
    connection: AsyncConnection, rule_id: str, limit: int
) -> list[ExposureRecord]:
    """The rule's latest exposures with their episodes' strongest outcomes, newest first."""
    rows = list(
        await connection.execute(
            select(exposures)
            .where(exposures.c.rule_id == rule_id)
            .order_by(exposures.c.seq.desc())
            .limit(limit)
        )
    )
    found: dict[str, Outcome] = {}
    ids = [row.episode_id for row in rows]
    for row in await connection.execute(select(outcomes).where(outcomes.c.episode_id.in_(ids))):
        outcome = Outcome(Signal(row.source), row.value)
        known = found.get(row.episode_id)
        if known is None or STRENGTH[outcome.source] > STRENGTH[known.source]:
            found[row.episode_id] = outcome
    records = []
    for row in rows:
        came = found.get(row.episode_id)
        records.append(
            ExposureRecord(
                episode_id=row.episode_id,
                position=row.position,
                similarity=row.similarity,
                score=row.score,
                at=row.created_at,
                source=None if came is None else came.source,
                value=None if came is None else came.value,
                weight=None if came is None else came.weight,
            )
        )
    return records


async def injected_since(connection: AsyncConnection, rule_id: str, since: datetime) -> int:
    """How many requests the rule has steered from that moment on."""
    statement = (
        select(func.count())
        .select_from(exposures)
        .where(
            exposures.c.rule_id == rule_id,
            ~exposures.c.withheld,
            exposures.c.created_at >= since,
        )
    )
    return await connection.scalar(statement) or 0


# -- trials


async def add_trial(
    connection: AsyncConnection,
    namespace: str,
    rule_id: str,
    text_hash: str,
    trial: Trial,
    at: datetime,
) -> bool:
    """False where these words of the rule have been tried on this episode."""
    statement = insert_unless_there(connection, trials)
    values = {
        "namespace": namespace,
        "rule_id": rule_id,
        "text_hash": text_hash,
        "episode_id": trial.episode_id,
        "with_rule": trial.with_rule,
        "without_rule": trial.without_rule,
        "reference": trial.reference.value,
        "weight": trial.weight,
        "created_at": at,
    }
    return (await connection.execute(statement, values)).rowcount == 1


async def trials_of(
    connection: AsyncConnection, rule_id: str, text_hash: str | None = None
) -> list[Trial]:
    """Newest first; of these words only, where a hash is given."""
    statement = select(trials).where(trials.c.rule_id == rule_id).order_by(trials.c.seq.desc())
    if text_hash is not None:
        statement = statement.where(trials.c.text_hash == text_hash)
    return [
        Trial(
            row.episode_id,
            row.with_rule,
            row.without_rule,
            Reference(row.reference),
            row.created_at,
        )
        for row in await connection.execute(statement)
    ]


# -- standings


async def standing(
    connection: AsyncConnection, rule_id: str, *, lock: bool = False
) -> Standing | None:
    """`lock`: until the end of the transaction nobody else changes it, where the database locks
    rows."""
    statement = select(standings).where(standings.c.rule_id == rule_id)
    if lock:
        mine = select(rules.c.seq).where(rules.c.id == rule_id)
        await connection.execute(mine.with_for_update())
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _standing(row)


async def standings_of(
    connection: AsyncConnection, rule_ids: Collection[str]
) -> dict[str, Standing]:
    rows = await connection.execute(select(standings).where(standings.c.rule_id.in_(rule_ids)))
    return {row.rule_id: _standing(row) for row in rows}


async def standings_since(connection: AsyncConnection, since: datetime | None) -> list[Standing]:
    """Those that changed at or after a moment; all for None."""
    statement = select(standings)
    if since is not None:
        statement = statement.where(standings.c.at >= since)
    return [_standing(row) for row in await connection.execute(statement)]


async def put_standing(connection: AsyncConnection, new: Standing) -> None:
    values = {
        "rule_id": new.rule_id,
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
    replaced = [name for name in values if name != "rule_id"]
    await connection.execute(insert_or_replace(connection, standings, *replaced), values)


async def vouch(connection: AsyncConnection, rule: Rule, at: datetime) -> None:
    """Somebody wants this very rule to be active: it need not prove itself first. What its use
    shows counts all the same."""
    known = await standing(connection, rule.id, lock=True)
    if known is None:
        known = Standing(rule.id, rule.namespace, at)
    await put_standing(
        connection, replace(known, at=at, helped=0, harmed=0, tried=0, proven=True, verdict=None)
    )


async def restart(connection: AsyncConnection, rule_id: str, text_hash: str, at: datetime) -> None:
    """The standing of a rule that has other words now: what trials of these words say."""
    known = await standing(connection, rule_id, lock=True)
    if known is None:
        return
    own = await trials_of(connection, rule_id, text_hash)
    with_rule, without_rule = NOTHING, NOTHING
    for trial in own:
        with_rule = with_rule.plus(trial.with_rule, trial.weight)
        without_rule = without_rule.plus(trial.without_rule, trial.weight)
    await put_standing(
        connection,
        Standing(
            rule_id=rule_id,
            namespace=known.namespace,
            at=at,
            with_rule=with_rule,
            without_rule=without_rule,
            helped=sum(trial.effect > 0 for trial in own),
            harmed=sum(trial.effect < 0 for trial in own),
            tried=len(own),
            lift=lift(with_rule, without_rule),
        ),
    )


async def contenders(
    connection: AsyncConnection, namespace: str, states: Iterable[RuleState], limit: int
) -> list[Contender]:
    """Rules of these states that the gate has not let through, the least tried first, of equals
    the oldest."""
    statement = (
        select(rules)
        .join_from(rules, standings, standings.c.rule_id == rules.c.id, isouter=True)
        .where(
            rules.c.namespace == namespace,
            rules.c.state.in_([state.value for state in states]),
            func.coalesce(standings.c.proven, false()).is_(False),
        )
        .order_by(func.coalesce(standings.c.tried, 0), rules.c.seq)
        .limit(limit)
    )
    found = [rule_of(row) for row in await connection.execute(statement)]
    known = await standings_of(connection, [rule.id for rule in found])
    return [Contender(rule, known.get(rule.id)) for rule in found]


async def losers(connection: AsyncConnection, namespace: str) -> list[str]:
    """Ids of active rules whose lift is below zero with its whole interval."""
    statement = (
        select(rules.c.id)
        .join_from(rules, standings, standings.c.rule_id == rules.c.id)
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
        .join_from(rules, standings, standings.c.rule_id == rules.c.id, isouter=True)
        .where(
            rules.c.namespace == namespace,
            rules.c.state == RuleState.ACTIVE,
            rules.c.exposures >= least_exposures,
            func.coalesce(standings.c.proven, false()).is_(False),
        )
        .order_by(rules.c.seq)
    )
    return list(await connection.scalars(statement))


def _standing(row: Any) -> Standing:
    return Standing(
        rule_id=row.rule_id,
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
