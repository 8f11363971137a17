"""Requests, feedback and cost, added up by day."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import utc_parts
from rules_store.database.schema import arms, episodes, feedback, spend_days
from rules_store.repository.effect import EPOCH, day_of

Found = dict[date, tuple[int, ...]]


async def requests(
    connection: AsyncConnection, within: Collection[str] | None, since: datetime, but: str
) -> Found:
    """Requests that began on a day, less those that were skipped because of `but`."""
    not_that = episodes.c.reason.is_(None) | (episodes.c.reason != but)
    return await _by_day(connection, episodes, within, since, [func.count()], not_that)


async def told(
    connection: AsyncConnection, within: Collection[str] | None, since: datetime
) -> Found:
    """Feedback of a day that found an answer right, and that found one wrong."""
    right = feedback.c.effect["right"].as_boolean()
    sums = [func.sum(case((right.is_(wanted), 1), else_=0)) for wanted in (True, False)]
    return await _by_day(connection, feedback, within, since, sums)


async def served(
    connection: AsyncConnection, within: Collection[str] | None, since: datetime
) -> Found:
    """Requests with experience and its tokens; requests that were measured, their tokens of prompts
    and of answers, and their milliseconds."""
    given = arms.c.experience_tokens > 0
    sums = [
        func.sum(case((given, 1), else_=0)),
        func.sum(arms.c.experience_tokens),
        func.count(),
        func.sum(arms.c.prompt_tokens),
        func.sum(arms.c.completion_tokens),
        func.sum(arms.c.milliseconds),
    ]
    return await _by_day(connection, arms, within, since, sums)


async def learning(
    connection: AsyncConnection, within: Collection[str] | None, since: datetime
) -> Found:
    """Calls and tokens that learning took on a day."""
    statement = (
        select(spend_days.c.day, func.sum(spend_days.c.calls), func.sum(spend_days.c.tokens))
        .where(spend_days.c.day >= day_of(since), *_of(spend_days, within))
        .group_by(spend_days.c.day)
    )
    return {
        EPOCH + timedelta(days=row[0]): (int(row[1]), int(row[2]))
        for row in await connection.execute(statement)
    }


async def _by_day(
    connection: AsyncConnection,
    table: Table,
    within: Collection[str] | None,
    since: datetime,
    sums: list[Any],
    *conditions: ColumnElement[bool],
) -> Found:
    parts = utc_parts(connection, table.c.created_at, hourly=False)
    statement = (
        select(*parts, *sums)
        .where(table.c.created_at >= since, *_of(table, within), *conditions)
        .group_by(*parts)
    )
    return {
        date(int(row[0]), int(row[1]), int(row[2])): tuple(int(each or 0) for each in row[3:])
        for row in await connection.execute(statement)
    }


def _of(table: Table, within: Collection[str] | None) -> tuple[ColumnElement[bool], ...]:
    return () if within is None else (table.c.namespace.in_(sorted(within)),)
