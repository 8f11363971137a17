"""What is handed to SQLite's driver compiled is stored as SQLAlchemy would store it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path

import pytest
from sqlalchemy import JSON, Boolean, Column, Integer, MetaData, String, Table, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import compiled, parse_url
from rules_store.database.schema import UtcDateTime
from rules_store.database.sqlite import SqliteDatabase
from rules_store.options import DEFAULT_OPTIONS

pytestmark = pytest.mark.sqlite
_ROWS = Table(
    "rows",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String, unique=True),
    Column("kind", String, server_default="none"),
    Column("done", Boolean),
    Column("trace", JSON),
    Column("at", UtcDateTime),
)
_EAST = timezone(timedelta(hours=5, minutes=30))


class Kind(StrEnum):
    OPEN = "open"


@pytest.mark.parametrize(
    "values",
    [
        {"kind": Kind.OPEN, "done": True, "trace": {"ä": [1, None, float("nan")]}, "at": None},
        {"kind": None, "done": None, "trace": None, "at": datetime(2024, 2, 29, tzinfo=UTC)},
        {"done": False, "trace": [], "at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=_EAST)},
    ],
)
async def test_stored_as_sqlalchemy_stores_it(tmp_path: Path, values: dict[str, object]) -> None:
    database = SqliteDatabase(parse_url(f"sqlite:///{tmp_path / 'x.db'}"), DEFAULT_OPTIONS)
    await database.prepare()
    async with database.write() as connection:
        await connection.run_sync(_ROWS.create)

    async def both(connection: AsyncConnection) -> None:
        several = [{"name": "c", **values}, {"name": "d", **values}]
        assert connection.info[compiled.DRIVER] is not None
        await compiled.execute(connection, insert(_ROWS), {"name": "a", **values})
        await compiled.execute(connection, insert(_ROWS), several)
        await connection.execute(insert(_ROWS), {"name": "b", **values})
        with pytest.raises(IntegrityError):
            await compiled.execute(connection, insert(_ROWS), {"name": "a", **values})

    await database.transact(both, at_request_end=True)
    async with database.read() as connection:
        found = await connection.exec_driver_sql("SELECT kind, done, trace, at FROM rows")
        assert len(set(found.all())) == 1
    await database.close()
