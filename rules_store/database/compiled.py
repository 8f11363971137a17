"""The statements of every request, past SQLAlchemy.

SQLAlchemy takes several times as long over one as SQLite itself. Inside a short SQLite transaction
they are compiled once and handed to the driver: the two writes of a request take 0.3 ms of the
processor instead of 0.8. Without it, steer took 5.1 ms beyond the embedding where it took 4.1
(`python -m benchmarks.serving.latency`, whose limit is 5).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Dialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

Values = Mapping[str, Any]
DRIVER = "driver"
"""In a connection's `info`: the sqlite3.Connection that may be called in this thread."""


class Result(Protocol):
    @property
    def rowcount(self) -> int: ...

    def fetchall(self) -> Sequence[Sequence[Any]]:
        """Values as the driver gives them."""


async def execute(
    connection: AsyncConnection, statement: UpdateBase, values: Values | Sequence[Values]
) -> Result:
    """`connection.execute` for a statement without literals, each of whose rows of `values` has
    the same parameters. Raises IntegrityError."""
    driver: sqlite3.Connection | None = connection.info.get(DRIVER)
    if driver is None:
        return await connection.execute(statement, values)
    rows = [values] if isinstance(values, Mapping) else values
    sql, parameters = _compiled(statement, connection.dialect, tuple(rows[0]))
    places = [[parameter(row) for parameter in parameters] for row in rows]
    try:
        if len(places) == 1:
            return driver.execute(sql, places[0])
        return driver.executemany(sql, places)
    except sqlite3.IntegrityError as error:
        raise IntegrityError(sql, None, error) from error


@cache
def _compiled(
    statement: UpdateBase, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, list[Callable[[Values], Any]]]:
    """The SQL, and what takes each of its places out of the values."""
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    assert isinstance(compiled, SQLCompiler)
    return str(compiled), [
        _parameter(name, compiled, dialect, given=name in names)
        for name in compiled.positiontup or []
    ]


def _parameter(
    name: str, compiled: SQLCompiler, dialect: Dialect, *, given: bool
) -> Callable[[Values], Any]:
    convert = compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
    if not given:
        constant = compiled.params[name]
        value = constant if convert is None else convert(constant)
        return lambda values: value
    if convert is None:
        return lambda values: values[name]
    return lambda values: convert(values[name])
