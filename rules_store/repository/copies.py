"""Rows of any table as they are, for a copy of a whole database, and what is noted of the copy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    BindParameter,
    Column,
    Integer,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.database.schema import (
    console_sessions,
    embeddings,
    examples,
    identity,
    metadata,
    precedents,
    rules,
    store_copies,
)
from rules_store.models.rules import Vector
from rules_store.repository.embeddings import TEXT

Row = dict[str, Any]
Key = tuple[Any, ...]
"""The values of a row's primary key."""

TABLES: tuple[Table, ...] = tuple(
    table
    for table in metadata.sorted_tables
    if table not in (identity, store_copies, console_sessions)
)
"""What is copied; every table after those that its rows point to."""
_UNIQUE = {"rules": "text_hash", "examples": "text_hash", "api_keys": "hash"}
"""Columns by which rows of a table exclude each other and that can change."""


# -- rows


async def counts(connection: AsyncConnection) -> dict[str, int]:
    """Rows of each table."""
    return {
        table.name: await connection.scalar(select(func.count()).select_from(table)) or 0
        for table in TABLES
    }


async def batch(
    connection: AsyncConnection, table: Table, after: Key | None, limit: int
) -> dict[Key, Row]:
    """The next rows in the order of their primary keys (each database has its own), by these."""
    keys = _keys(table)
    statement = select(table).order_by(*keys).limit(limit)
    if after is not None:
        statement = statement.where(tuple_(*keys) > _bound(keys, after))
    return _by_key(table, await connection.execute(statement))


async def with_keys(
    connection: AsyncConnection, table: Table, keys: Collection[Key]
) -> dict[Key, Row]:
    """Those rows that there are, by their keys."""
    columns = _keys(table)
    if len(columns) == 1:
        wanted = columns[0].in_([key[0] for key in keys])
    else:
        wanted = tuple_(*columns).in_(list(keys))
    return _by_key(table, await connection.execute(select(table).where(wanted)))


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """With the primary keys that they have."""
    if rows:
        await connection.execute(insert(table), rows)


async def update_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    """All columns of those that have their primary keys."""
    if not rows:
        return
    keys = [column.name for column in _keys(table)]
    values = {c.name: bindparam(f"new_{c.name}", type_=c.type) for c in table.c}
    statement = update(table).where(*_is_row(table)).values(values)
    await connection.execute(
        statement,
        [
            {f"new_{name}": value for name, value in row.items()}
            | {f"old_{name}": row[name] for name in keys}
            for row in rows
        ],
    )


async def delete_rows(connection: AsyncConnection, table: Table, rows: Iterable[Row]) -> None:
    gone = _old_keys(table, rows)
    if gone:
        await connection.execute(delete(table).where(*_is_row(table)), gone)


async def make_way(connection: AsyncConnection, table: Table, rows: Iterable[Row]) -> None:
    """Gives rows that are to be changed a value of their own where two of them may be about to
    exchange theirs."""
    name = _UNIQUE.get(table.name)
    own = _old_keys(table, rows)
    if name is not None and own:
        aside = bindparam("aside", type_=String)
        statement = update(table).where(*_is_row(table)).values({name: aside})
        given = [row | {"aside": f"~{row['old_seq']}"} for row in own]
        await connection.execute(statement, given)


def _keys(table: Table) -> list[Column[Any]]:
    return list(inspect(table).primary_key)


def _bound(columns: Sequence[Column[Any]], values: Key) -> Any:
    return tuple_(
        *(
            BindParameter(None, value, type_=column.type)
            for column, value in zip(columns, values, strict=True)
        )
    )


def _is_row(table: Table) -> list[Any]:
    return [column == bindparam(f"old_{column.name}", type_=column.type) for column in _keys(table)]


def _old_keys(table: Table, rows: Iterable[Row]) -> list[Row]:
    names = [column.name for column in _keys(table)]
    return [{f"old_{name}": row[name] for name in names} for row in rows]


def _by_key(table: Table, rows: Iterable[Any]) -> dict[Key, Row]:
    names = [column.name for column in _keys(table)]
    found = {}
    for row in rows:
        # What an old version let in goes into no PostgreSQL.
        values = {
            name: storable(value) if isinstance(value, str) else value
            for name, value in row._mapping.items()
        }
        found[tuple(values[name] for name in names)] = values
    return found


# -- numbers of rows to come


async def last_numbers(connection: AsyncConnection) -> dict[str, int]:
    """Table -> the last number that it has given a row, deleted ones included."""
    if connection.dialect.name == "sqlite":
        rows = await connection.execute(text("SELECT name, seq FROM sqlite_sequence"))
        given = {row.name: row.seq for row in rows}
    else:
        given = {
            table.name: await connection.scalar(
                text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")
            )
            for table in numbered_tables()
            if (sequence := await _sequence(connection, table)) is not None
        }
    return {table.name: int(given.get(table.name) or 0) for table in numbered_tables()}


async def set_last_numbers(connection: AsyncConnection, numbers: Mapping[str, int]) -> None:
    """The next row of a table gets a higher number than that."""
    for table in numbered_tables():
        number = numbers.get(table.name, 0)
        if number < 1:
            continue
        if connection.dialect.name == "sqlite":
            gone = text("DELETE FROM sqlite_sequence WHERE name = :name")
            await connection.execute(gone, {"name": table.name})
            new = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)")
            await connection.execute(new, {"name": table.name, "number": number})
        else:
            sequence = await _sequence(connection, table)
            move = text("SELECT setval(CAST(:sequence AS regclass), :number)")
            await connection.execute(move, {"sequence": sequence, "number": number})


def numbered_tables() -> list[Table]:
    """Those whose rows the database numbers."""
    return [table for table in TABLES if table.dialect_options["sqlite"]["autoincrement"]]


def number_of(table: Table) -> Column[Any]:
    """The column that the database numbers."""
    (column,) = _keys(table)
    assert isinstance(column.type, Integer), table.name
    return column


async def _sequence(connection: AsyncConnection, table: Table) -> str | None:
    statement = text("SELECT pg_get_serial_sequence(:name, :column)")
    given = {"name": table.name, "column": number_of(table).name}
    found: str | None = await connection.scalar(statement, given)
    return found


# -- the copy itself


async def identity_of(connection: AsyncConnection) -> str:
    return str(await connection.scalar(select(identity.c.id)))


async def take_identity(connection: AsyncConnection, other: str) -> None:
    await connection.execute(update(identity).values(id=other))


async def under_way(connection: AsyncConnection) -> Row | None:
    """What is noted of a copy into this database; None where there is none, or somebody has served
    from it since."""
    row = (await connection.execute(select(store_copies))).one_or_none()
    return None if row is None else dict(row._mapping)


async def begin(connection: AsyncConnection, source: str, at: datetime) -> None:
    """Of a copy from the database of this identity, for the first time or again."""
    await connection.execute(delete(store_copies))
    await connection.execute(insert(store_copies).values(source=source, begun_at=at))


async def end(connection: AsyncConnection, last_event: int, at: datetime) -> None:
    await connection.execute(update(store_copies).values(ended_at=at, last_event=last_event))


async def forget(connection: AsyncConnection) -> None:
    await connection.execute(delete(store_copies))


# -- questions to compare two databases by


async def main_model(connection: AsyncConnection) -> str | None:
    """The embedding model that most vectors of rules and examples are of; None: no vectors."""
    found: dict[str, int] = {}
    for column in (embeddings.c.model, examples.c.embedding_model):
        statement = select(column, func.count()).where(column.is_not(None)).group_by(column)
        for name, count in await connection.execute(statement):
            found[name] = found.get(name, 0) + count
    return max(sorted(found), key=found.__getitem__, default=None)


async def questions(connection: AsyncConnection, model: str, most: int) -> list[tuple[str, Vector]]:
    """(namespace, unit vector) of the latest questions that were explored; where there are fewer,
    of examples, then texts of rules."""
    own = and_(embeddings.c.model == model, embeddings.c.kind == TEXT)
    sources = (
        select(precedents.c.namespace, precedents.c.vector)
        .where(precedents.c.embedding_model == model)
        .order_by(precedents.c.seq.desc()),
        select(examples.c.namespace, examples.c.vector)
        .where(examples.c.embedding_model == model, examples.c.vector.is_not(None))
        .order_by(examples.c.seq.desc()),
        select(rules.c.namespace, embeddings.c.vector)
        .join_from(rules, embeddings, embeddings.c.rule_seq == rules.c.seq)
        .where(own)
        .order_by(rules.c.seq.desc()),
    )
    found: list[tuple[str, Vector]] = []
    for statement in sources:
        rows = await connection.execute(statement.limit(most - len(found)))
        found += [(space, np.frombuffer(vector, dtype="<f4")) for space, vector in rows]
        if len(found) >= most:
            break
    return found
