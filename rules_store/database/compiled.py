"""Statements of every request. SQLAlchemy takes several times as long over one as SQLite itself, so
inside a `DirectConnection`'s transaction they are compiled once and handed to the driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Dialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.types import TypeEngine

from rules_store.database.schema import UtcDateTime, to_utc

Values = Mapping[str, Any]


class Direct(Protocol):
    """A connection that can reach its driver."""

    driver: sqlite3.Connection
    dialect: Dialect


async def changed(
    connection: AsyncConnection | Direct, statement: UpdateBase, values: Values | Sequence[Values]
) -> int:
    """Rows that the statement has changed or inserted. `values` has every parameter's; several
    make one call. Raises IntegrityError."""
    if isinstance(connection, AsyncConnection):
        result = await connection.execute(statement, values)
        return result.rowcount
    return _run(connection, statement, values).rowcount


async def returned(
    connection: AsyncConnection | Direct, statement: UpdateBase, values: Values
) -> Any:
    """The first column of the only row that the statement returns; None when it returns none.
    Raises IntegrityError."""
    if isinstance(connection, AsyncConnection):
        return await connection.scalar(statement, values)
    rows = _run(connection, statement, values).fetchall()
    return rows[0][0] if rows else None


async def all_returned(
    connection: AsyncConnection | Direct, statement: UpdateBase, values: Values
) -> Sequence[Sequence[Any]]:
    """The rows that the statement returns, of columns that any driver gives as they are: texts,
    numbers, and truth values as what counts as one. Raises IntegrityError."""
    if isinstance(connection, AsyncConnection):
        return (await connection.execute(statement, values)).all()
    return _run(connection, statement, values).fetchall()


@dataclass(frozen=True, slots=True)
class _Compiled:
    sql: str
    parameters: tuple[tuple[str, Callable[[Any], Any] | None], ...]
    """Names in their places, and what makes a value the driver's."""
    constants: Values

    def places(self, values: Values) -> list[Any]:
        given = {**self.constants, **values}
        return [
            given[name] if convert is None else convert(given[name])
            for name, convert in self.parameters
        ]


@cache
def _compiled(statement: UpdateBase, dialect: Dialect, names: tuple[str, ...]) -> _Compiled:
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    assert isinstance(compiled, SQLCompiler)
    places = compiled.positiontup or []
    types = {name: bind.type for name, bind in compiled.binds.items()}
    return _Compiled(
        str(compiled),
        tuple((name, _converter(types[name], dialect)) for name in places),
        {name: value for name, value in compiled.params.items() if name not in names},
    )


def _converter(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, UtcDateTime):
        return moment_to_text
    return kind.dialect_impl(dialect).bind_processor(dialect)


def moment_to_text(value: datetime | None) -> str | None:
    """As SQLAlchemy stores a moment in SQLite, in a third of its time. Raises ValueError."""
    if value is None:
        return None
    return to_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds")


def _run(
    connection: Direct, statement: UpdateBase, values: Values | Sequence[Values]
) -> sqlite3.Cursor:
    rows = [values] if isinstance(values, Mapping) else values
    compiled = _compiled(statement, connection.dialect, tuple(rows[0]))
    places = [compiled.places(row) for row in rows]
    try:
        if len(places) == 1:
            return connection.driver.execute(compiled.sql, places[0])
        return connection.driver.executemany(compiled.sql, places)
    except sqlite3.IntegrityError as error:
        raise IntegrityError(compiled.sql, None, error) from error
