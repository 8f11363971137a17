"""Short SQLite transactions in the event loop's own thread: when, and when not."""

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
from sqlalchemy import make_url, text

from rules_store.database.sqlite import inline, setup
from rules_store.database.sqlite.setup import begin_immediate
from rules_store.database.sqlite.sync_connection import Work
from rules_store.database.sqlite.writer import DirectConnection

pytestmark = pytest.mark.sqlite
PATIENT = 10.0
LOOP = threading.main_thread().name


class Bench:
    """Rows that say which thread has written them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE things (name TEXT UNIQUE, thread TEXT)")
        self.direct = DirectConnection(make_url(f"sqlite:///{path}"), begin_immediate, 0.02)

    @property
    def stored(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT * FROM things"))

    async def put(self, name: str, *, short: bool = True) -> str:
        """The thread that it was done in."""
        return await self.direct.run(putting(name), PATIENT, short=short)

    async def begin(self) -> None:
        """Until there is a thread that waits: before that nothing is done at once."""
        await self.direct.run(putting("first"), PATIENT)
        await self.idle()

    async def idle(self) -> None:
        while not self.direct._idle:
            await asyncio.sleep(0.001)


def putting(name: str, seconds: float = 0.0) -> Work[str]:
    async def work(connection: Any) -> str:
        thread = threading.current_thread().name
        values = {"name": name, "thread": thread}
        await connection.execute(text("INSERT INTO things VALUES (:name, :thread)"), values)
        time.sleep(seconds)
        return thread

    return work


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "things.db")
    await made.begin()
    yield made
    await made.direct.close()


async def test_a_short_one_is_done_at_once(bench: Bench) -> None:
    writing = bench.put("a")
    with pytest.raises(StopIteration, match=LOOP):
        writing.send(None)
    assert bench.stored["a"] == LOOP
    assert await bench.put("b", short=False) != LOOP


async def test_nobody_is_overtaken(bench: Bench) -> None:
    async with bench.direct.turn(PATIENT):
        waiting = asyncio.create_task(bench.put("a"))
        await asyncio.sleep(0.01)
        assert "a" not in bench.stored
    assert await waiting != LOOP


async def test_the_loop_waits_for_no_other_process(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        waiting = asyncio.create_task(bench.put("a"))
        await asyncio.sleep(0)
        assert time.monotonic() - started < 1.0
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("COMMIT")
    assert await waiting != LOOP


async def test_an_error_leaves_nothing_behind(bench: Bench) -> None:
    async def fails(connection: Any) -> None:
        await putting("a")(connection)
        await putting("a")(connection)

    with pytest.raises(Exception, match="UNIQUE"):
        await bench.direct.run(fails, PATIENT, short=True)
    assert "a" not in bench.stored
    assert await bench.put("a") == LOOP


async def test_a_slow_disk_is_left_to_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await bench.direct.run(putting("slow", 0.05), PATIENT, short=True) == LOOP
    assert await bench.put("a") != LOOP
    await bench.idle()
    now = time.monotonic()
    monkeypatch.setattr(inline, "monotonic", lambda: now + inline.WARY)
    assert await bench.put("b") == LOOP


async def test_the_first_one_after_a_checkpoint_goes_to_the_thread(bench: Bench) -> None:
    with bench.direct.checkpointing():
        await asyncio.to_thread(setup.checkpoint, str(bench.path))
        assert await bench.put("meanwhile") != LOOP
    assert await bench.put("first after it") != LOOP
    await bench.idle()
    assert await bench.put("second") == LOOP


def test_the_log_of_a_busy_file_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has always written more while what there was is moved into the file."""
    monkeypatch.setattr(setup, "_LONG_LOG", 200)
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
        if setup.checkpoint(str(path)):
            setup.begin_log_anew(str(path))
        with closing(sqlite3.connect(path)) as connection:
            pages = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        shares.append(pages / written)
    over.set()
    writer.join()
    assert min(shares[10:]) < 0.5


async def test_a_closed_one_writes_nothing_any_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "closing.db")
    await bench.begin()
    await bench.direct.close()
    waiting = asyncio.create_task(bench.put("late"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    assert "late" not in bench.stored
