"""A whole store, copied between the two databases: all of every table, in one moment of the source,
whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Float,
    Integer,
    LargeBinary,
    Table,
    delete,
    insert,
    select,
    update,
)

from rules_store.database import Database, open_database
from rules_store.database.schema import UtcDateTime, identity, metadata, rules, store_copies
from rules_store.errors import CopyFailed, StoreUnavailable
from rules_store.models.events import Change
from rules_store.operations.store_copy import CopyReport, copy_store
from rules_store.options import DEFAULT_OPTIONS, StoreOptions
from rules_store.repository.copies import TABLES
from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import MODEL, axis, open_store, random_vector, write

pytestmark = pytest.mark.sqlite

NOW = datetime(2026, 11, 28, 12, 0, 0, 123456, tzinfo=UTC)
WHO = Change("tester", "test")
ROWS = 7
MEANINGFUL = {
    "polarity": "positive",
    "state": "active",
    "trust": "label",
    "model": MODEL,
    "embedding_model": MODEL,
    "kind": "text",
}
PARSED: dict[str, dict[str, Any]] = {
    "namespaces": {"settings": {"learn": True}, "suspension": None},
    "api_keys": {"namespaces": ["*"], "permissions": ["chat"]},
    "standings": {"verdict": "helpful"},
    "choices": {"given": "rules"},
}
"""What is read when a store is opened."""
NUMBERED: dict[str, Callable[[int], dict[str, Any]]] = {
    "embedders": lambda number: {"model": f"{MODEL} {number}"}
}
Tables = dict[str, list[dict[str, Any]]]


def row(table: Table, number: int) -> dict[str, Any]:
    """One that fits, in every column."""
    made: dict[str, Any] = {}
    for column in table.c:
        name = column.name
        if column.foreign_keys:
            (key,) = column.foreign_keys
            made[name] = row(key.column.table, number)[key.column.name]
        elif name in MEANINGFUL:
            made[name] = MEANINGFUL[name]
        elif isinstance(column.type, Boolean):
            made[name] = bool(number % 2)
        elif isinstance(column.type, Integer):
            made[name] = 100 + number
        elif isinstance(column.type, Float):
            made[name] = number / 3
        elif isinstance(column.type, UtcDateTime):
            made[name] = NOW + timedelta(seconds=number)
        elif isinstance(column.type, JSON):
            made[name] = {"n": number, "list": [None, 1.5, "é\u2028"]}
        elif isinstance(column.type, LargeBinary):
            made[name] = random_vector(number).tobytes()
        else:
            # Letters that the two sort differently.
            longest = getattr(column.type, "length", None)
            made[name] = f"{'Ää_aA'[number % 5]}{number} {name}"[:longest]
    return made | PARSED.get(table.name, {}) | NUMBERED.get(table.name, lambda number: {})(number)


async def fill(database: Database) -> None:
    async def write_all(connection: Any) -> None:
        for table in TABLES:
            await connection.execute(insert(table), [row(table, number) for number in range(ROWS)])

    await database.transact(write_all)


async def content(database: Database) -> Tables:
    """Everything, in one order."""
    found: Tables = {}
    async with database.read() as connection:
        for table in metadata.sorted_tables:
            if table is not store_copies:
                rows = await connection.execute(select(table))
                found[table.name] = sorted((dict(each._mapping) for each in rows), key=repr)
    return found


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = open_database(url, StoreOptions())
    yield database
    await database.close()


async def copied(source: str, target: str, **more: Any) -> CopyReport:
    return await copy_store(source, target, DEFAULT_OPTIONS, lambda: NOW, **more)


@pytest.fixture
def there(postgres_server: str) -> Any:
    with postgres.database(postgres_server) as url:
        yield url


async def test_there_and_back_is_all_of_it(tmp_path: Path, there: str) -> None:
    store = await open_store(tmp_path, dimension=None)
    await fill(store.context.database)
    here = f"sqlite:///{tmp_path / 'store.db'}"
    wanted = await content(store.context.database)
    # The source is open, as a gateway's is, and goes on writing.
    report = await copied(here, there)
    assert report.questions == 3 * ROWS  # precedents, examples, rules
    assert not report.resumed
    assert report.written == sum(report.rows.values()) == ROWS * len(TABLES)
    async with opened(there) as database:
        assert await content(database) == wanted
    back = tmp_path / "back" / "store.db"
    await copied(there, f"sqlite:///{back}")
    async with opened(f"sqlite:///{back}") as database:
        assert await content(database) == wanted
    # What comes next has a number of its own, also behind rows that are gone.
    async with opened(there) as database:
        again = await RuleStore.open(there, embedding_model=MODEL)
        await again.namespaces.ensure("later")
        made = await write(again, "Another rule.", axis(3), namespace="later")
        number = select(rules.c.seq).where(rules.c.id == made.id)
        async with database.read() as connection:
            assert (await connection.scalar(number) or 0) > 100 + ROWS - 1
        await again.close()
    await store.close()


class Killed(BaseException):
    pass


async def test_a_copy_that_was_cut_short_goes_on_whatever_changed(
    tmp_path: Path, there: str
) -> None:
    store = await open_store(tmp_path, dimension=None)
    database = store.context.database
    await fill(database)
    here = f"sqlite:///{tmp_path / 'store.db'}"

    def kill(table: str, done: int, total: int) -> None:
        if table == "examples":
            raise Killed

    with pytest.raises(Killed):
        await copied(here, there, progress=kill)
    with pytest.raises(StoreUnavailable, match="ttcl store copy"):
        await RuleStore.open(there, embedding_model=MODEL)

    async def live_on(connection: Any) -> None:
        """Rows go, come and change, and two rules exchange their texts."""
        by_id = {each["id"]: each for each in (row(rules, number) for number in range(ROWS))}
        one, two = list(by_id.values())[:2]
        spaces = {"namespace": one["namespace"]}
        for each, text_hash in ((two, "aside"), (one, two["text_hash"]), (two, one["text_hash"])):
            await connection.execute(
                update(rules)
                .where(rules.c.id == each["id"])
                .values(text_hash=text_hash, text=text_hash, **spaces)
            )
        for name in ("events", "outcomes", "arms", "feedback", "jobs"):
            table = metadata.tables[name]
            key = next(iter(table.primary_key))
            await connection.execute(delete(table).where(key == row(table, 3)[key.name]))
        await connection.execute(delete(rules).where(rules.c.id == row(rules, 4)["id"]))
        for name in ("events", "episodes", "precedents"):
            table = metadata.tables[name]
            parents = {key.name: row(table, 0)[key.name] for key in table.c if key.foreign_keys}
            await connection.execute(insert(table), [row(table, 50) | parents])

    await database.transact(live_on)
    report = await copied(here, there)
    assert report.resumed
    async with opened(there) as target:
        assert await content(target) == await content(database)
    # Until somebody serves from it, it is brought up to date; then it is somebody's.
    await store.namespaces.ensure("later")
    await write(store, "Learned since.", axis(5), namespace="later")
    assert 0 < (await copied(here, there)).written < 10
    async with opened(there) as target:
        assert await content(target) == await content(database)
    assert (await copied(here, there)).written == 0
    used = await RuleStore.open(there, embedding_model=MODEL)
    await used.begin_to_serve()
    await used.close()
    with pytest.raises(CopyFailed, match="is not empty"):
        await copied(here, there)
    await store.close()


async def test_what_was_changed_by_hand_is_not_written_over(tmp_path: Path) -> None:
    store = await open_store(tmp_path, dimension=None)
    await store.namespaces.ensure("default")
    here, there = f"sqlite:///{tmp_path / 'store.db'}", f"sqlite:///{tmp_path / 'there.db'}"
    await copied(here, there)
    other = await RuleStore.open(there, embedding_model=MODEL)
    await write(other, "Written there.", axis(1))
    await other.close()
    with pytest.raises(CopyFailed, match="changed since"):
        await copied(here, there)
    await store.close()


async def test_what_can_not_be_copied_is_said(tmp_path: Path) -> None:
    here = f"sqlite:///{tmp_path / 'store.db'}"
    store = await open_store(tmp_path)
    await store.namespaces.ensure("default")
    with pytest.raises(CopyFailed, match="no such file"):
        await copied(f"sqlite:///{tmp_path / 'none.db'}", here)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(CopyFailed, match=r"not empty \(1 events, 1 namespaces\)"):
        await copied(here, here)

    async def age(connection: Any) -> None:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0008'")

    other = tmp_path / "older"
    older = await open_store(other)
    await older.context.database.transact(age)
    await older.close()
    with pytest.raises(CopyFailed, match="another version"):
        await copied(here, f"sqlite:///{other / 'store.db'}")
    with pytest.raises(CopyFailed, match="upgrade it first"):
        await copied(f"sqlite:///{other / 'store.db'}", f"sqlite:///{tmp_path / 'new.db'}")
    async with opened(here) as database:
        async with database.alone():
            with pytest.raises(StoreUnavailable, match="Another copy"):
                await copied(f"sqlite:///{tmp_path / 'store.db'}", here)
        before = await content(database)
    assert before[identity.name]
    await store.close()
