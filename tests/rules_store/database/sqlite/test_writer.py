"""SQLite transactions in one thread: who shares one, and what becomes of it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import make_url, text

from rules_store.database.sqlite.setup import begin_immediate
from rules_store.database.sqlite.sync_connection import Work
from rules_store.database.sqlite.writer import DirectConnection
from rules_store.errors import StoreUnavailable

pytestmark = pytest.mark.sqlite
PATIENT = 10.0


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE things (name TEXT UNIQUE)")
        self.begun: list[float] = []
        """The patience with which each transaction was begun."""

        def begin(driver: sqlite3.Connection, patience: float) -> None:
            self.begun.append(patience)
            begin_immediate(driver, patience)

        self.direct = DirectConnection(make_url(f"sqlite:///{path}"), begin, 0.02)

    @property
    def stored(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY 1")]

    def put(self, name: str, patience: float = PATIENT, *, short: bool = True) -> Any:
        return asyncio.create_task(self.direct.run(putting(name), patience, short=short))


def putting(name: str) -> Work[str]:
    async def work(connection: Any) -> str:
        await connection.execute(text("INSERT INTO things VALUES (:name)"), {"name": name})
        return name

    return work


async def giving_up(connection: Any) -> None:
    """As SQLite itself does when the disk is full."""
    connection.driver.execute("ROLLBACK")
    raise sqlite3.OperationalError("database or disk is full")


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "things.db")
    yield made
    await made.direct.close()


async def queued() -> None:
    """Tasks that were made have come to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_those_that_wait_share_a_transaction(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        waiting = [bench.put(name) for name in "abc"]
        await queued()
    assert await asyncio.gather(*waiting) == ["a", "b", "c"]
    assert bench.stored == ["a", "b", "c"]
    assert len(bench.begun) == 1


async def test_only_those_that_are_marked_share_one(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        waiting = [bench.put(name, short=name not in "bc") for name in "abcde"]
        await queued()
    assert await asyncio.gather(*waiting) == ["a", "b", "c", "d", "e"]
    assert len(bench.begun) == 4  # d and e share


async def test_the_error_of_one_is_no_error_of_the_others(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        waiting = [bench.put(name) for name in ("a", "b", "a", "c")]
        await queued()
    first, second, twice, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, second, last) == ("a", "b", "c")
    assert "UNIQUE" in str(twice)
    assert bench.stored == ["a", "b", "c"]
    assert await bench.put("d") == "d"
    assert len(bench.begun) == 2


async def test_what_ends_the_transaction_fails_all_of_it(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        waiting = [
            bench.put("a"),
            asyncio.create_task(bench.direct.run(giving_up, PATIENT, short=True)),
            bench.put("b"),
        ]
        await queued()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert ["full" in str(error) for error in errors] == [True, True, True]
    assert bench.stored == []
    assert await bench.put("c") == "c"


async def test_each_waits_for_another_process_as_long_as_it_will(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with bench.direct.turn(PATIENT):
            hurried, patient = bench.put("a", 0.1), bench.put("b")
            await queued()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await hurried
        assert not patient.done()
        other.execute("COMMIT")
    assert await patient == "b"
    assert bench.stored == ["b"]


async def test_a_queue_that_stands_still_is_given_up(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        hurried, patient = bench.put("a", 0.05), bench.put("b")
        with pytest.raises(StoreUnavailable, match="stuck"):
            await hurried
        assert not patient.done()
    assert await patient == "b"
    assert bench.stored == ["b"]


async def test_a_queue_that_moves_is_waited_for(bench: Bench) -> None:
    """However long it is: each end of a transaction is a new beginning of the patience."""

    async def slow(connection: Any) -> None:
        time.sleep(0.06)

    before = [asyncio.create_task(bench.direct.run(slow, PATIENT)) for _ in range(5)]
    await queued()
    assert await bench.put("last", 0.15) == "last"
    assert all(task.done() for task in before)


async def test_who_is_cancelled_is_not_run(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        cancelled, kept = bench.put("a"), bench.put("b")
        await queued()
        cancelled.cancel()
        await queued()
    assert await kept == "b"
    assert bench.stored == ["b"]


async def test_a_cancelled_turn_holds_nobody_up(bench: Bench) -> None:
    async def take() -> None:
        async with bench.direct.turn(PATIENT):
            await asyncio.sleep(60)

    turns = [asyncio.create_task(take()) for _ in range(3)]
    await asyncio.sleep(0.05)
    for turn in turns:
        turn.cancel()
    assert await bench.put("a") == "a"


async def test_what_waits_at_the_end_is_done(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ending.db")
    waiting = [bench.put(name, short=False) for name in "abc"]
    await queued()
    await bench.direct.close()
    assert await asyncio.gather(*waiting) == ["a", "b", "c"]
