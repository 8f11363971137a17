"""Requests by arm, what their outcomes add up to, and what learning costs by day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Row, Table, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import compiled
from rules_store.database.dialect import (
    insert_or_add,
    insert_or_replace,
    insert_unless_there,
    utc_parts,
)
from rules_store.database.schema import (
    arms,
    effect_points,
    effects,
    judged_conversations,
    outcomes,
    spend_days,
)
from rules_store.models.effect import (
    TOLD,
    ArmOutcomes,
    ArmUse,
    Assignment,
    DaySpend,
    EffectPoint,
    Purpose,
    Served,
    SignalEffect,
    ToldOutcome,
)
from rules_store.models.evidence import Signal
from rules_store.models.jobs import Spend
from rules_store.policy.control import Arm
from rules_store.policy.effect import NO_OUTCOMES, EffectState

_ADD = insert(arms)
EPOCH = date(1970, 1, 1)
EFFECT_TABLES: tuple[Table, ...] = (effects, judged_conversations, effect_points)
"""What is begun anew where steering is resumed."""


async def add_request(
    connection: AsyncConnection, namespace: str, episode_id: str, served: Served, at: datetime
) -> None:
    drawn = served.assignment
    await compiled.execute(
        connection,
        _ADD,
        {
            "episode_id": episode_id,
            "namespace": namespace,
            "arm": drawn.arm.value,
            "share": drawn.share,
            "conversation": drawn.conversation,
            "offered": served.offered,
            "milliseconds": served.milliseconds,
            "prompt_tokens": served.prompt_tokens,
            "completion_tokens": served.completion_tokens,
            "experience_tokens": served.experience_tokens,
            "created_at": at,
        },
    )


async def counted_request(connection: AsyncConnection, episode_id: str) -> Assignment | None:
    """What was drawn for the request of an episode; None where its outcomes count for nothing:
    nothing was drawn, or there was nothing to give."""
    row = (
        await connection.execute(
            select(arms.c.arm, arms.c.share, arms.c.conversation).where(
                arms.c.episode_id == episode_id, arms.c.offered, arms.c.share > 0, arms.c.share < 1
            )
        )
    ).one_or_none()
    return None if row is None else Assignment(Arm(row.arm), row.share, row.conversation)


async def judge_first(
    connection: AsyncConnection, namespace: str, signal: Signal, conversation: str
) -> bool:
    """Whether this is the conversation's first outcome by the signal; the next one is not."""
    values = {"namespace": namespace, "signal": signal.value, "conversation": conversation}
    statement = insert_unless_there(connection, judged_conversations)
    return (await connection.execute(statement, values)).rowcount == 1


async def locked_state(
    connection: AsyncConnection, namespace: str, signal: Signal, at: datetime
) -> EffectState:
    """Until the end of the transaction nobody else changes it, where the database locks rows."""
    key = {"namespace": namespace, "signal": signal.value}
    empty = {**key, "state": NO_OUTCOMES.as_json(), "started_at": at, "updated_at": at}
    await connection.execute(insert_unless_there(connection, effects), empty)
    mine = select(effects.c.state).where(*_of(effects, namespace, signal)).with_for_update()
    return EffectState.from_json((await connection.execute(mine)).scalar_one())


async def put_state(
    connection: AsyncConnection, namespace: str, signal: Signal, state: EffectState, at: datetime
) -> None:
    await connection.execute(
        update(effects)
        .where(*_of(effects, namespace, signal))
        .values(state=state.as_json(), updated_at=at)
    )


async def add_point(
    connection: AsyncConnection, namespace: str, signal: Signal, point: EffectPoint
) -> None:
    statement = insert_or_replace(connection, effect_points, "difference", "low", "high", "at")
    await connection.execute(
        statement,
        {
            "namespace": namespace,
            "signal": signal.value,
            "conversations": point.conversations,
            "difference": point.difference,
            "low": point.low,
            "high": point.high,
            "at": point.at,
        },
    )


async def states(connection: AsyncConnection, namespace: str) -> list[SignalEffect]:
    """By signal, in no order; without points and outcomes by arm."""
    rows = await connection.execute(select(effects).where(effects.c.namespace == namespace))
    return [_signal(row) for row in rows]


async def latest_states(connection: AsyncConnection, most: int) -> list[tuple[str, SignalEffect]]:
    """(namespace, what a signal says) of the `most` that changed last."""
    statement = select(effects).order_by(effects.c.updated_at.desc()).limit(most)
    return [(row.namespace, _signal(row)) for row in await connection.execute(statement)]


async def points(connection: AsyncConnection, namespace: str) -> dict[Signal, list[EffectPoint]]:
    """In order."""
    found: dict[Signal, list[EffectPoint]] = {}
    for row in await connection.execute(
        select(effect_points)
        .where(effect_points.c.namespace == namespace)
        .order_by(effect_points.c.conversations)
    ):
        point = EffectPoint(row.conversations, row.difference, row.low, row.high, row.at)
        found.setdefault(Signal(row.signal), []).append(point)
    return found


async def use_by_arm(
    connection: AsyncConnection, namespace: str, since: datetime
) -> dict[Arm, ArmUse]:
    """Of requests at or after a moment."""
    offered = func.sum(func.cast(arms.c.offered, arms.c.prompt_tokens.type))
    statement = (
        select(
            arms.c.arm,
            func.count().label("requests"),
            offered.label("offered"),
            func.avg(arms.c.milliseconds).label("milliseconds"),
            func.avg(arms.c.prompt_tokens).label("prompt_tokens"),
            func.avg(arms.c.completion_tokens).label("completion_tokens"),
        )
        .where(arms.c.namespace == namespace, arms.c.created_at >= since)
        .group_by(arms.c.arm)
    )
    return {
        Arm(row.arm): ArmUse(
            row.requests,
            row.offered,
            _number(row.milliseconds),
            _number(row.prompt_tokens),
            _number(row.completion_tokens),
        )
        for row in await connection.execute(statement)
    }


async def outcomes_by_arm(
    connection: AsyncConnection, namespace: str, since: datetime
) -> dict[Signal, dict[Arm, ArmOutcomes]]:
    """Of requests at or after a moment for which there was experience that fits."""
    statement = (
        select(
            outcomes.c.source,
            arms.c.arm,
            # Several may have judged one answer.
            func.count(outcomes.c.episode_id.distinct()),
            func.avg(outcomes.c.value),
        )
        .join(arms, arms.c.episode_id == outcomes.c.episode_id)
        .where(
            outcomes.c.namespace == namespace,
            # No outcome is earlier than its request.
            outcomes.c.created_at >= since,
            arms.c.created_at >= since,
            arms.c.offered,
        )
        .group_by(outcomes.c.source, arms.c.arm)
    )
    found: dict[Signal, dict[Arm, ArmOutcomes]] = {}
    for source, arm, count, mean in await connection.execute(statement):
        found.setdefault(Signal(source), {})[Arm(arm)] = ArmOutcomes(count, _number(mean))
    return found


async def latest_told(
    connection: AsyncConnection, namespace: str, signal: Signal, since: datetime, most: int
) -> list[ToldOutcome]:
    """The latest outcomes, oldest first, of requests at or after a moment that could be given
    experience."""
    statement = (
        select(outcomes.c.key_id, arms.c.conversation, arms.c.arm, arms.c.share, outcomes.c.value)
        .join(arms, arms.c.episode_id == outcomes.c.episode_id)
        .where(
            outcomes.c.namespace == namespace,
            outcomes.c.source == signal.value,
            # No outcome is earlier than its request.
            outcomes.c.created_at >= since,
            arms.c.created_at >= since,
            arms.c.offered,
            arms.c.share > 0,
            arms.c.share < 1,
        )
        .order_by(outcomes.c.created_at.desc(), outcomes.c.episode_id)
        .limit(most)
    )
    rows = list(await connection.execute(statement))
    return [
        ToldOutcome(row.key_id, row.conversation, Arm(row.arm), row.share, row.value)
        for row in reversed(rows)
    ]


async def has_requests(connection: AsyncConnection, namespace: str, least: int) -> bool:
    """Whether the namespace has had so many requests that were drawn for."""
    some = select(literal(1)).where(arms.c.namespace == namespace).limit(least).subquery()
    return ((await connection.scalar(select(func.count()).select_from(some))) or 0) >= least


async def has_outcomes(
    connection: AsyncConnection, namespace: str, since: datetime, least: int
) -> bool:
    """Whether so many outcomes were told at or after a moment."""
    some = (
        select(literal(1))
        .where(
            outcomes.c.namespace == namespace,
            outcomes.c.created_at >= since,
            outcomes.c.source.in_([signal.value for signal in TOLD]),
        )
        .limit(least)
        .subquery()
    )
    return ((await connection.scalar(select(func.count()).select_from(some))) or 0) >= least


async def forget(connection: AsyncConnection, namespace: str) -> None:
    """What outcomes add up to; the requests stay."""
    for table in EFFECT_TABLES:
        await connection.execute(delete(table).where(table.c.namespace == namespace))


# -- spend


def day_of(moment: datetime) -> int:
    """Since the epoch, in UTC."""
    return (moment.astimezone(UTC).date() - EPOCH).days


async def add_spend(
    connection: AsyncConnection, namespace: str, day: int, purpose: Purpose, spend: Spend
) -> None:
    await connection.execute(
        insert_or_add(connection, spend_days, "calls", "tokens"),
        {
            "namespace": namespace,
            "day": day,
            "purpose": purpose.value,
            "calls": spend.calls,
            "tokens": spend.tokens,
        },
    )


async def spend_by_day(
    connection: AsyncConnection, namespace: str, since: datetime
) -> list[DaySpend]:
    """Of the days from that of a moment on that have any, in order."""
    calls: dict[date, dict[Purpose, int]] = {}
    tokens: dict[date, dict[Purpose, int]] = {}
    for row in await connection.execute(
        select(spend_days).where(
            spend_days.c.namespace == namespace, spend_days.c.day >= day_of(since)
        )
    ):
        day = EPOCH + timedelta(days=row.day)
        calls.setdefault(day, {})[Purpose(row.purpose)] = row.calls
        tokens.setdefault(day, {})[Purpose(row.purpose)] = row.tokens
    steered = await _experience_by_day(connection, namespace, since)
    return [
        DaySpend(day, calls.get(day, {}), tokens.get(day, {}), *steered.get(day, (0, 0)))
        for day in sorted({*calls, *steered})
    ]


async def _experience_by_day(
    connection: AsyncConnection, namespace: str, since: datetime
) -> Mapping[date, tuple[int, int]]:
    """Requests that were given experience, and its tokens."""
    midnight = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    parts = utc_parts(connection, arms.c.created_at, hourly=False)
    statement = (
        select(*parts, func.count(), func.sum(arms.c.experience_tokens))
        .where(
            arms.c.namespace == namespace,
            arms.c.created_at >= midnight,
            arms.c.experience_tokens > 0,
        )
        .group_by(*parts)
    )
    return {
        date(int(row[0]), int(row[1]), int(row[2])): (row[3], int(row[4]))
        for row in await connection.execute(statement)
    }


def _of(table: Table, namespace: str, signal: Signal) -> tuple[Any, ...]:
    return table.c.namespace == namespace, table.c.signal == signal.value


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _signal(row: Row[Any]) -> SignalEffect:
    return SignalEffect(
        Signal(row.signal), EffectState.from_json(row.state), row.started_at, row.updated_at
    )
