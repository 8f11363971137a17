"""SQLite's one writer: whose turn it is, in which thread, and what becomes of an error."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import parse_url, sqlite
from rules_store.database.interface import Work
from rules_store.database.sqlite import SqliteDatabase, checkpoint
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

pytestmark = pytest.mark.sqlite
LOOP = threading.main_thread().name


class Bench:
    """Rows that say which thread has written them."""

    def __init__(self, path: Path, busy_timeout: float = 10.0) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE things (name TEXT UNIQUE, thread TEXT)")
        options = StoreOptions(busy_timeout=busy_timeout, begin_timeout=0.1)
        self.database = SqliteDatabase(parse_url(f"sqlite:///{path}"), options)

    @property
    def stored(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT * FROM things ORDER BY name"))

    async def put(self, name: str, *, short: bool = True) -> None:
        await self.database.transact(putting(name), at_request_end=short)

    async def put_hurriedly(self, name: str) -> None:
        await self.database.transact(putting(name), at_request_start=True)


def putting(name: str, seconds: float = 0.0) -> Work[None]:
    async def work(connection: AsyncConnection) -> None:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.create_function("thread", 0, lambda: threading.current_thread().name)
        await connection.execute(
            text("INSERT INTO things VALUES (:name, thread())"), {"name": name}
        )
        await asyncio.sleep(seconds)

    return work


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "things.db")
    yield made
    await made.database.close()


async def queued() -> None:
    """Tasks that were made have come to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)


def ran(*names: str, of: Bench) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(of.put(name)) for name in names]


async def test_a_short_one_is_run_in_the_event_loops_thread(bench: Bench) -> None:
    await bench.put("a")
    await bench.put("b", short=False)
    await bench.put_hurriedly("c")
    assert bench.stored["a"] == bench.stored["c"] == LOOP
    assert bench.stored["b"] != LOOP


async def test_nobody_is_overtaken(bench: Bench) -> None:
    order: list[str] = []

    async def put(name: str, *, short: bool) -> None:
        await bench.put(name, short=short)
        order.append(name)

    async with bench.database.write():
        waiting = [asyncio.create_task(put(name, short=name != "b")) for name in "abc"]
        await queued()
        assert bench.stored == {}
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]


async def test_the_loop_waits_for_no_other_process(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        waiting = asyncio.create_task(bench.put("a"))
        await queued()
        assert time.monotonic() - started < 1.0
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("COMMIT")
    await waiting
    assert list(bench.stored) == ["a"]


async def test_who_is_hurried_waits_less_for_another_process(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await bench.put_hurriedly("a")
        patient = asyncio.create_task(bench.put("b"))
        await asyncio.sleep(0.2)
        assert not patient.done()
        other.execute("COMMIT")
    await patient
    assert list(bench.stored) == ["b"]


@pytest.mark.parametrize("short", [True, False])
async def test_an_error_leaves_nothing_behind(bench: Bench, short: bool) -> None:
    async def fails(connection: AsyncConnection) -> None:
        await putting("a")(connection)
        await putting("a")(connection)

    with pytest.raises(Exception, match="UNIQUE"):
        await bench.database.transact(fails, at_request_end=short)
    assert bench.stored == {}
    await bench.put("a", short=short)
    assert list(bench.stored) == ["a"]


@pytest.mark.parametrize("short", [True, False])
async def test_a_transaction_that_sqlite_has_ended_fails(bench: Bench, short: bool) -> None:
    """As SQLite itself does when the disk is full."""

    async def giving_up(connection: Any) -> None:
        await putting("a")(connection)
        await connection.exec_driver_sql("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(StoreUnavailable, match="full"):
        await bench.database.transact(giving_up, at_request_end=short)
    assert bench.stored == {}
    await bench.put("b", short=short)
    assert list(bench.stored) == ["b"]


async def test_a_queue_that_stands_still_is_given_up(bench: Bench) -> None:
    async with bench.database.write():
        at_request_start = asyncio.create_task(bench.put_hurriedly("a"))
        patient = asyncio.create_task(bench.put("b"))
        with pytest.raises(StoreUnavailable, match="stuck"):
            await at_request_start
        assert not patient.done()
    await patient
    assert list(bench.stored) == ["b"]


async def test_a_queue_that_moves_is_waited_for(bench: Bench) -> None:
    """However long it is: each end of a transaction is a new beginning of the patience."""
    before = [
        asyncio.create_task(bench.database.transact(putting(str(number), 0.06)))
        for number in range(5)
    ]
    await queued()
    await bench.put_hurriedly("last")
    assert all(task.done() for task in before)


@pytest.mark.parametrize("short", [True, False])
async def test_who_is_cancelled_is_not_run(bench: Bench, short: bool) -> None:
    async with bench.database.write():
        waiting = [asyncio.create_task(bench.put(name, short=short)) for name in "ab"]
        await queued()
        waiting[0].cancel()
        await queued()
    await waiting[1]
    assert list(bench.stored) == ["b"]


async def test_a_cancelled_writer_holds_nobody_up(bench: Bench) -> None:
    async def take(name: str) -> None:
        async with bench.database.write() as connection:
            await putting(name)(connection)
            await asyncio.sleep(60)

    turns = [asyncio.create_task(take(str(number))) for number in range(3)]
    await asyncio.sleep(0.05)
    for turn in turns:
        turn.cancel()
    await bench.put("a")
    assert list(bench.stored) == ["a"]


async def test_cancelled_in_the_midst_of_anything(bench: Bench) -> None:
    for number in range(50):
        task = asyncio.create_task(bench.database.transact(putting(f"cancelled {number}")))
        await asyncio.sleep(number * 0.0001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # Who is told that it is done is right; a cancellation may come too late for the commit.
        assert task.cancelled() or f"cancelled {number}" in bench.stored
        await bench.put(f"next {number}")
    assert sum(name.startswith("next") for name in bench.stored) == 50


async def test_what_waits_at_the_end_is_done(bench: Bench) -> None:
    waiting = ran("a", "b", "c", of=bench)
    await queued()
    await bench.database.close()
    await asyncio.gather(*waiting)
    assert list(bench.stored) == ["a", "b", "c"]


def test_the_log_of_a_busy_file_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has always written more while what there was is moved into the file."""
    monkeypatch.setattr(sqlite, "_LONG_LOG", 200)
    path = tmp_path / "busy.db"
    written, over = 0, threading.Event()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (name TEXT)")

    def write() -> None:
        nonlocal written
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            while not over.is_set():
                connection.execute("INSERT INTO things VALUES ('one page of the log at least')")
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    shares = []
    for _ in range(20):
        time.sleep(0.02)
        checkpoint(path)
        with closing(sqlite3.connect(path)) as connection:
            pages = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        shares.append(pages / written)
    over.set()
    writer.join()
    assert min(shares[10:]) < 0.5


async def test_a_closed_one_writes_nothing(tmp_path: Path) -> None:
    """A late write must not open the file again."""
    bench = Bench(tmp_path / "late.db")
    await bench.put("in time")
    await bench.database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await bench.put("late")
    assert list(bench.stored) == ["in time"]
