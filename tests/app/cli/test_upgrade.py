"""Which commands make or change a database, and what the others say where they can't read it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from rules_store.database.lock import held_alone
from tests.app.cli.test_rules import Run, embeddings, new_database, ttcl
from tests.rules_store.database.test_migrate import make_older

__all__ = ["embeddings", "new_database", "ttcl"]

READS = [
    ("rules", "list"),
    ("rules", "show", "rule_1"),
    ("rules", "export"),
    ("examples", "conflicts"),
    ("namespaces", "list"),
    ("namespaces", "freeze", "default"),
    ("examples", "retire", "example_1"),
    ("keys", "list"),
    ("effect",),
    ("events", "list"),
    ("rules", "retire", "rule_1"),
]


def revision(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        found: str = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    connection.close()
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file that the commands of `ttcl` find."""
    return tmp_path / "data" / "ttcl.db"


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_nothing_is_made_where_nothing_is(
    ttcl: Run, database: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    database.unlink()
    monkeypatch.setenv("TTCL_DATA_DIR", "elsewhere")
    done = ttcl(*command, code=2)
    assert done.stdout == ""
    folder = database.parents[1]
    assert f"no database of ttcl at sqlite:///{folder / 'elsewhere' / 'ttcl.db'}" in done.stderr
    assert "'elsewhere' (TTCL_DATA_DIR) is looked for where a command runs" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_what_adds_something_says_that_it_makes_a_database(ttcl: Run, database: Path) -> None:
    database.unlink()
    done = ttcl("keys", "create", "app", "--namespace", "default")
    assert f"making a new database: sqlite:///{database}" in done.stderr
    assert "new database" not in ttcl("keys", "create", "app", "--namespace", "a").stderr
    assert len(ttcl("keys", "list", "--json").stdout.splitlines()) == 2


def test_an_older_database_is_left_for_upgrade(ttcl: Run, database: Path) -> None:
    head = revision(database)
    database.unlink()
    make_older(f"sqlite:///{database}")
    for command in (("rules", "list"), ("keys", "create", "app", "--namespace", "default")):
        done = ttcl(*command, code=2)
        assert f"has schema 0007; this version needs {head}. `ttcl upgrade`" in done.stderr
    previewed = json.loads(ttcl("upgrade", "--dry-run", "--json").stdout)
    assert (previewed["found"], previewed["needed"]) == ("0007", head)
    assert previewed["migrations"][0]["revision"] == "0008"
    assert previewed["changed"] is False
    assert revision(database) == "0007"
    done = ttcl("upgrade")
    assert f"schema 0007 -> {head}" in done.stdout
    assert "0008  Jobs that were lost with their processes" in done.stdout
    assert revision(database) == head
    assert "nothing to do" in ttcl("upgrade").stdout
    assert "0 of 0" in ttcl("rules", "list").stderr


def test_an_upgrade_waits_until_the_gateway_is_stopped(ttcl: Run, database: Path) -> None:
    database.unlink()
    make_older(f"sqlite:///{database}")
    with held_alone(database):
        assert "stop it" in ttcl("upgrade", code=2).stderr
    assert revision(database) == "0007"


def test_upgrade_makes_a_database_and_its_folder(ttcl: Run, database: Path) -> None:
    database.unlink()
    database.parent.rmdir()
    assert "schema none -> " in ttcl("upgrade").stdout
    assert database.exists()


def test_a_file_of_another_program_is_not_touched(ttcl: Run, database: Path) -> None:
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = database.read_bytes()
    assert "no database of ttcl" in ttcl("rules", "list", code=2).stderr
    assert "another program" in ttcl("upgrade", code=2).stderr
    assert database.read_bytes() == before
