"""Expressions that the two databases spell differently."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Column, ColumnElement, extract, func, literal_column
from sqlalchemy.ext.asyncio import AsyncConnection


def contains(dialect: str, column: Column[str], part: str) -> ColumnElement[bool]:
    """Whether the column has `part` in it, in any case (on SQLite: of ASCII letters)."""
    pattern = "%" + re.sub(r"([%_/])", r"/\1", part) + "%"
    # SQLite's own LIKE folds as lower() does there, at a third of the time.
    like = column.like if dialect == "sqlite" else column.ilike
    return like(pattern, escape="/")


def utc_parts(
    connection: AsyncConnection, moment: Column[Any], *, hourly: bool
) -> list[ColumnElement[Any]]:
    """Year, month, day and, if `hourly`, hour in UTC, to group by."""
    # SQLite stores UTC; PostgreSQL would take the session's zone.
    sqlite = connection.dialect.name == "sqlite"
    value = moment if sqlite else func.timezone(literal_column("'UTC'"), moment)
    fields = ["year", "month", "day"] + (["hour"] if hourly else [])
    return [extract(field, value) for field in fields]
