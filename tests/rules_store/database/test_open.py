"""What stands in the way of opening a database is said in one sentence; everything else opens."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine

import rules_store
from rules_store.database.schema import metadata
from rules_store.errors import StoreUnavailable
from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import open_store, sql

ROOT = Path(__file__).parents[3]


async def test_migrations_build_what_tables_say(store: RuleStore, tmp_path: Path) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    url = store.context.database.url
    engine = create_engine(url.set(drivername=url.drivername.replace("aiosqlite", "pysqlite")))
    with engine.connect() as connection:
        assert differences(connection) == []
    engine.dispose()


@pytest.mark.sqlite
async def test_sqlite_is_set_up_for_concurrent_use(store: RuleStore, tmp_path: Path) -> None:
    assert sql(tmp_path, "PRAGMA journal_mode") == [("wal",)]
    async with store.context.database.read() as connection:
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 1


@pytest.mark.sqlite
async def test_folders_are_made(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "a" / "b")
    await store.ping()
    await store.close()


def _no_sqlite(folder: Path) -> None:
    (folder / "store.db").write_bytes(b"this is no database at all" * 100)


def _a_folder(folder: Path) -> None:
    (folder / "store.db").mkdir()


def _other_program(folder: Path) -> None:
    sql(folder, "CREATE TABLE recipes (name TEXT)")


def _newer(folder: Path) -> None:
    asyncio.run(_make(folder))
    sql(folder, "UPDATE alembic_version SET version_num = '9999'")


def _torn(folder: Path) -> None:
    asyncio.run(_make(folder))
    path = folder / "store.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


async def _make(folder: Path) -> None:
    await (await open_store(folder)).close()


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_no_sqlite, "not a database"),
        (_a_folder, "can't be opened"),
        (_other_program, "belongs to another program"),
        (_newer, "'9999', which this version does not know"),
        (_torn, "malformed"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, spoil: object, sentence: str) -> None:
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(StoreUnavailable, match=sentence) as raised:
        asyncio.run(open_store(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.sqlite
async def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable, match="can't be opened"):
        await open_store(tmp_path / "file")


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", "not one"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("mysql://host/name", "'mysql' are not supported"),
        ("sqlite+nothing:///x.db", "not installed"),
    ],
)
async def test_a_bad_url(url: str, sentence: str) -> None:
    with pytest.raises(StoreUnavailable, match=sentence):
        await RuleStore.open(url, embedding_model="m")


@pytest.mark.sqlite
async def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreUnavailable, match=r"pip install .ttcl\[postgres\]"):
        await RuleStore.open("postgresql://user@127.0.0.1/name", embedding_model="m")


@pytest.mark.sqlite
async def test_a_locked_file(tmp_path: Path) -> None:
    await _make(tmp_path)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreUnavailable, match="locked"):
            await open_store(tmp_path, busy_timeout=0.1)
    finally:
        other.close()


def test_processes_may_start_at_once(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from tests.rules_store.helpers import open_store\n"
        "async def main():\n"
        "    store = await open_store(Path(sys.argv[1]))\n"
        "    await store.namespaces.ensure('default')\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    postgres.make_empty(tmp_path)
    command = [sys.executable, "-c", script, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert sql(tmp_path, "SELECT count(*) FROM store_identity") == [(1,)]
    assert sql(tmp_path, "SELECT count(*) FROM events") == [(1,)]


async def test_stores_may_open_at_once_in_one_process(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(open_store(tmp_path / str(n % 2)) for n in range(4)))
    for store in stores:
        await store.ping()
        await store.close()


async def test_migrations_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await _make(tmp_path)
    folder = Path(rules_store.__file__).parent / "migrations"
    assert (folder / "versions" / "v0001_initial.py").is_file()
