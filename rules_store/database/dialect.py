"""Expressions and INSERTs that the two databases spell differently."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Insert,
    Table,
    cast,
    extract,
    func,
    literal_column,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

MOST = 2**31 - 1
"""That an integer column of PostgreSQL holds."""


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


def insert_or_add(connection: AsyncConnection, table: Table, *added: str) -> Insert:
    """INSERT of the rows it is executed with, whose `added` columns are added to those of the row
    that is there."""
    return _insert_or_add(connection.dialect.name, table, added)


@cache
def _insert_or_add(dialect: str, table: Table, added: tuple[str, ...]) -> Insert:
    statement = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    return statement.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={name: _sum(dialect, table.c[name], statement.excluded[name]) for name in added},
    )


def _sum(dialect: str, one: ColumnElement[int], other: ColumnElement[int]) -> ColumnElement[int]:
    """No more than the column holds."""
    least = func.min if dialect == "sqlite" else func.least
    added: ColumnElement[int] = least(cast(one, BigInteger) + other, MOST)
    return added


def insert_or_replace(
    connection: AsyncConnection, table: Table, *replaced: str, by: str | None = None
) -> Insert:
    """INSERT of the row it is executed with, whose `replaced` columns take the place of those of
    the row that is there: the one of the same primary key, or of the same unique column `by`."""
    return _insert_or_replace(connection.dialect.name, table, replaced, by)


@cache
def _insert_or_replace(
    dialect: str, table: Table, replaced: tuple[str, ...], by: str | None
) -> Insert:
    statement = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    keys = [column.name for column in table.primary_key] if by is None else [by]
    return statement.on_conflict_do_update(
        index_elements=keys,
        set_={name: statement.excluded[name] for name in replaced},
    )


def insert_unless_there(connection: AsyncConnection, table: Table) -> Insert:
    """INSERT of the values it is executed with, which does nothing (rowcount 0) where a unique
    constraint is hit."""
    return _insert_unless_there(connection.dialect.name, table)


@cache
def _insert_unless_there(dialect: str, table: Table) -> Insert:
    # Building a statement costs more than running it, so one is built a table.
    make = sqlite.insert if dialect == "sqlite" else postgresql.insert
    # Inline and with its row count kept: whether there is a new row is all that is wanted of it.
    statement = make(table).inline().on_conflict_do_nothing()
    return statement.execution_options(preserve_rowcount=True)
