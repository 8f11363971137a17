"""What is stored about people's questions: how it ends, gets out, is kept safe, and is not logged.

Tables are read as they are in the database, so that one that is new is looked at too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.wiring import gateway as gateway_wiring
from rules_store.database.schema import metadata
from tests import postgres
from tests.compat.helpers import ask, script_majority
from tests.compat.test_concurrency import (
    SUBJECTS,
    check_index_parity,
    question_about,
    script_learning,
)
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import Gateway, running_gateway

WHO = {"actor": "tests", "reason": "arranged by a test"}
MARK = "quuxmarker"
"""In every text that clients send and get, and in nothing else."""
GONE, KEPT = "goner", "keeper"
Tables = dict[str, list[str]]


class Database:
    """One of either kind, to be looked at from outside."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder = folder
        self.url = url

    @property
    def settings(self) -> dict[str, Any]:
        return {"data_dir": self.folder} | ({"database_url": self.url} if self.url else {})

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        if self.url is not None:
            return postgres.query(self.url, statement)
        file = sqlite3.connect(self.folder / "ttcl.db", timeout=10)
        with contextlib.closing(file), file:
            return file.execute(statement).fetchall()

    def tables(self) -> Tables:
        """Rows of every table, each as one text."""
        names = (
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            if self.url
            else "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        return {
            name: sorted(str(row) for row in self.query(f'SELECT * FROM "{name}"'))
            for (name,) in self.query(names)
        }


@pytest.fixture
def database(database_url: str | None, tmp_path: Path) -> Database:
    (tmp_path / "data").mkdir()
    return Database(tmp_path / "data", database_url)


@pytest.fixture
def scripted(upstream: ScriptedUpstream) -> ScriptedUpstream:
    """Clients get the mark in their answers; what is learned has none of it."""
    script_learning(upstream)
    upstream.when(lambda body: "temperature" not in body, Reply(f"{MARK} \\boxed{{7}}"))
    script_majority(upstream, f"{MARK} \\boxed{{9}}", f"{MARK} \\boxed{{7}}")
    return upstream


@contextlib.contextmanager
def gateway_on(database: Database, upstream: ScriptedUpstream, **more: Any) -> Iterator[Gateway]:
    options = {**database.settings, "students": 2, "embedding_timeout": 30.0, **more}
    with running_gateway(upstream, **options) as gateway:
        yield gateway


async def question(gateway: Gateway, namespace: str, subject: str, mode: str = "steer") -> str:
    """Asked and answered; the episode."""
    text = f"{question_about(subject)} {MARK}"
    answer = await gateway.post(ask(mode, text, ttcl={"namespace": namespace}))
    assert answer.status_code == 200, answer.text
    return answer.headers["x-ttcl-episode"]


async def lived_in(gateway: Gateway, namespace: str, subject: str, *, paused: bool = True) -> None:
    """Something in every table that can have something of a namespace."""
    for mode in ("explore", "steer", "steer"):
        # The last one is given what feedback on the one before has made.
        episode = await question(gateway, namespace, subject, mode)
        await asyncio.to_thread(gateway.settled, episode, 20)
        if mode == "steer":
            feedback = {"episode_id": episode, "score": 1.0, "label": f"7 {MARK}", "comment": MARK}
            async with gateway.client() as client:
                await client.post("/feedback", body=feedback, cast_to=object)
    rule = gateway.rules(namespace)[0]
    patch = {"text": "Weigh every part twice.", "expected_version": rule["version"], **WHO}
    for method, path, body in (
        ("PATCH", f"/rules/{rule['id']}", patch),
        ("POST", f"/namespaces/{namespace}/snapshots", {"label": "here", **WHO}),
        ("POST", "/keys", {"name": "visitor", "namespaces": [namespace], **WHO}),
        ("POST", "/jobs:pause", {"namespace": namespace, **WHO}),
    )[: 4 if paused else 3]:
        response = gateway.admin(method, path, json=body)
        assert response.status_code in (200, 201), response.text
    # Its job is still to be done.
    await question(gateway, namespace, subject)


def naming(tables: Tables, *words: str) -> Tables:
    """Tables with the rows that say one of these words."""
    found = {
        name: [row for row in rows if any(word in row for word in words)]
        for name, rows in tables.items()
    }
    return {name: rows for name, rows in found.items() if rows}


TRIED = (
    "INSERT INTO trials (namespace, rule_id, text_hash, episode_id, with_rule, without_rule,"
    " reference, weight, created_at)"
    " VALUES ('{0}', 'rule_of_{0}', 'x', 'x', 1, 0, 'label', 1, '2026-01-01 00:00:00')"
)
COMPARED = (
    "INSERT INTO effects (namespace, signal, state, started_at, updated_at)"
    " VALUES ('{0}', 'label', '{{}}', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
    "INSERT INTO judged_conversations (namespace, signal, conversation)"
    " VALUES ('{0}', 'label', 'x')",
    "INSERT INTO effect_points (namespace, signal, conversations, difference, low, high, at)"
    " VALUES ('{0}', 'label', 1, 0, -1, 1, '2026-01-01 00:00:00')",
)
OF_NO_NAMESPACE = {
    "console_sessions",
    "store_identity",
    "api_keys",
    "key_spend",
    "embedders",
    "withdrawals",
    "withdrawn_items",
    "old_secrets",
    "store_copies",
}
"""What is the whole store's."""


async def test_a_deleted_namespace_is_gone_from_every_table(
    database: Database, scripted: ScriptedUpstream
) -> None:
    with gateway_on(database, scripted, policy="gated", hold_out_rate=0.0) as gateway:
        gateway.admin("POST", "/namespaces", json={"name": GONE, **WHO})
        for namespace, subject in ((GONE, SUBJECTS[0]), (KEPT, SUBJECTS[1])):
            made = gateway.add_rule(namespace, "Count what is left.", question_about(subject))
            assert made["state"] == "active"
            await lived_in(gateway, namespace, subject)
        for namespace in (GONE, KEPT):
            database.query(TRIED.format(namespace))  # a replay, without the queue for one
            for statement in COMPARED:  # outcomes of both arms, without so many requests
                database.query(statement.format(namespace))
        # Whoever looks at rules brings their counts of exposures up to date.
        mine = [row["id"] for row in gateway.rules(GONE)]
        before = database.tables()
        listed = gateway.admin("GET", "/episodes", params={"namespace": GONE, "limit": "100"})
        mine += [row["id"] for row in listed.json()["data"]]
        assert len(mine) > 5
        # The test looks where there is something to be found.
        full = set(naming(before, GONE, *mine))
        own = {table.name for table in metadata.sorted_tables} - OF_NO_NAMESPACE
        assert own - full == {"embeddings"}, "which have the number of their rule"
        others = naming(before, KEPT)
        body = {"confirm": GONE, **WHO}
        gone = gateway.admin("DELETE", f"/namespaces/{GONE}", params=body)
        assert gone.status_code == 200, gone.text

        def left() -> Tables:
            found = naming(database.tables(), GONE, *mine, SUBJECTS[0])
            # A key says whom it was made for, and so does the log of keys.
            found.pop("api_keys")
            events = [row for row in found.pop("events") if "'key." not in row]
            return {**found, "events": events}

        # The entry of the job that was to be done is taken out of the queue by who gets it.
        deadline = time.monotonic() + 15
        while set(left()) != {"events"}:
            assert time.monotonic() < deadline, left()
            await asyncio.sleep(0.05)
        (event,) = left()["events"]
        assert "namespace.deleted" in event
        assert not any(word in event for word in (*mine, SUBJECTS[0], MARK))
        after = naming(database.tables(), KEPT)
        assert {name: rows for name, rows in after.items() if name != "api_keys"} == {
            name: rows for name, rows in others.items() if name != "api_keys"
        }
        orphans = "SELECT * FROM embeddings WHERE rule_seq NOT IN (SELECT seq FROM rules)"
        assert database.query(orphans) == []
    snapshot = (database.folder / "index" / "rules.index").read_bytes()
    assert GONE.encode() not in snapshot
    assert KEPT.encode() in snapshot


async def test_retention_is_the_namespaces_own_and_leaves_no_text(
    database: Database, scripted: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_wiring, "SWEEP_INTERVAL", 0.1)
    with gateway_on(database, scripted) as gateway:
        for namespace, subject in ((GONE, SUBJECTS[0]), (KEPT, SUBJECTS[1])):
            await lived_in(gateway, namespace, subject, paused=False)

        def episodes(namespace: str) -> list[dict[str, Any]]:
            listed = gateway.admin("GET", "/episodes", params={"namespace": namespace})
            return list(listed.json()["data"])

        def examples(namespace: str) -> list[dict[str, Any]]:
            listed = gateway.admin("GET", "/examples", params={"namespace": namespace})
            return list(listed.json()["data"])

        for namespace in (GONE, KEPT):
            assert len(examples(namespace)) == 1
            for episode in episodes(namespace):
                await asyncio.to_thread(gateway.settled, episode["id"], 20)
        mark = set(naming(database.tables(), MARK))
        assert {"episodes", "feedback", "precedents", "jobs", "examples", "events"} <= mark
        rules = [(rule["id"], rule["text"]) for rule in gateway.rules(GONE)]
        database.query("UPDATE episodes SET created_at = '2020-01-01 00:00:00'")
        database.query("UPDATE examples SET verified_at = '2020-01-01 00:00:00'")
        settings = {"settings": {"retention_days": 30}, **WHO}
        changed = gateway.admin("PATCH", f"/namespaces/{GONE}", json=settings)
        assert changed.status_code == 200, changed.text
        deadline = time.monotonic() + 10
        while episodes(GONE) or examples(GONE):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert len(episodes(KEPT)) == 4
        assert len(examples(KEPT)) == 1
        for name, rows in naming(database.tables(), MARK).items():
            assert not naming({name: rows}, GONE, SUBJECTS[0]), name
        assert [(rule["id"], rule["text"]) for rule in gateway.rules(GONE)] == rules


# -- a copy of everything


async def test_all_of_a_namespace_can_be_had(
    database: Database, scripted: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from app.cli import root

    with gateway_on(database, scripted) as gateway:
        for namespace, subject in ((GONE, SUBJECTS[0]), (KEPT, SUBJECTS[1])):
            await lived_in(gateway, namespace, subject)
    monkeypatch.chdir(database.folder)
    monkeypatch.setenv("TTCL_DATA_DIR", str(database.folder))
    monkeypatch.setenv("TTCL_EMBEDDING_BASE_URL", scripted.base_url)
    monkeypatch.setenv("TTCL_EMBEDDING_MODEL", "hash-384")
    if database.url:
        monkeypatch.setenv("TTCL_DATABASE_URL", database.url)

    def exported(*arguments: str) -> Any:
        return CliRunner().invoke(root.app, ["namespaces", "export", *arguments])

    file = database.folder / "all.jsonl"
    done = await asyncio.to_thread(exported, GONE, str(file))
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    told = {line["table"] for line in lines}
    assert f"{len(lines)} rows" in done.output
    stored = naming(database.tables(), GONE)
    for name in OF_NO_NAMESPACE:
        stored.pop(name, None)
    stored["events"] = [row for row in stored["events"] if "'key." not in row]
    for name, rows in stored.items():
        of_table = [line for line in lines if line["table"] == name]
        assert len(of_table) == len(rows), name
    assert {"episodes", "rules", "events", "feedback", "jobs", "embeddings"} <= told
    assert KEPT not in file.read_text()
    assert SUBJECTS[1] not in file.read_text()
    assert (await asyncio.to_thread(exported, "nowhere")).exit_code != 0


# -- backup


def by_shell(database: Database, copy: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the sqlite3 shell is not installed")
    run("sqlite3", str(database.folder / "ttcl.db"), f".backup {copy}")


def by_vacuum(database: Database, copy: Path) -> None:
    database.query(f"VACUUM INTO '{copy}'")


def by_dump(database: Database, copy: Path) -> None:
    assert database.url is not None
    copy.write_bytes(run(program("pg_dump"), "-Fc", database.url))


def run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def program(name: str) -> str:
    """The server's own, where they lie together."""
    folder = postgres.programs()
    assert folder is not None
    there = folder / name
    return str(there) if there.exists() else name


@pytest.mark.parametrize(
    ("database_url", "copy_to"),
    [("sqlite", by_shell), ("sqlite", by_vacuum), ("postgresql", by_dump)],
    indirect=["database_url"],
)
async def test_a_copy_made_in_use_serves_the_same_and_goes_on(
    database: Database,
    scripted: ScriptedUpstream,
    tmp_path: Path,
    copy_to: Callable[[Database, Path], None],
) -> None:
    copy = tmp_path / "copy"
    asked = 0

    async def customers(gateway: Gateway) -> None:
        nonlocal asked
        while True:
            await question(gateway, "busy", SUBJECTS[3])
            asked += 1

    with gateway_on(database, scripted) as gateway:
        learned = await question(gateway, KEPT, SUBJECTS[0])
        await asyncio.to_thread(gateway.settled, learned, 20)
        gateway.admin("POST", "/jobs:pause", json=WHO)
        waiting = await question(gateway, KEPT, SUBJECTS[1])
        rules = sorted(str(rule) for rule in gateway.rules(KEPT))
        busy = asyncio.create_task(customers(gateway))
        await scripted.until(lambda: asked > 3, 20)
        await asyncio.to_thread(copy_to, database, copy)
        seen = asked
        await scripted.until(lambda: asked > seen + 3, 20)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        # What comes after the copy is not in it, and the index snapshot is ahead of it.
        gateway.add_rule(KEPT, "Lost with the disk.", question_about(SUBJECTS[0]))
    if database.url is None:
        for name in ("ttcl.db-wal", "ttcl.db-shm"):
            (database.folder / name).unlink(missing_ok=True)
        shutil.copyfile(copy, database.folder / "ttcl.db")
    else:
        restore = (program("pg_restore"), "--clean", "--if-exists", "-d", database.url)
        await asyncio.to_thread(run, *restore, str(copy))
    with gateway_on(database, scripted) as gateway:
        assert sorted(str(rule) for rule in gateway.rules(KEPT)) == rules
        again = await question(gateway, KEPT, SUBJECTS[0])
        injected = (gateway.episode(again) or {})["rules_injected"]
        assert {rule["text"] for rule in injected} == {
            f"Write {SUBJECTS[0]} beside every {SUBJECTS[0]} figure.",
            f"Avoid mixing {SUBJECTS[0]} with strangers.",
        }
        gateway.admin("POST", "/jobs:resume", json=WHO)
        settled = await asyncio.to_thread(gateway.settled, waiting, 30)
        assert settled["status"] == "learned", settled["reason"]
        texts = {rule["text"]: rule["frequency"] for rule in gateway.rules(KEPT)}
        assert texts[f"Write {SUBJECTS[1]} beside every {SUBJECTS[1]} figure."] == 1
        assert "Lost with the disk." not in texts

        def over() -> bool:
            jobs = gateway.admin("GET", "/jobs", params={"limit": "100"}).json()["data"]
            return {job["state"] for job in jobs} == {"done"}

        deadline = time.monotonic() + 30
        while not await asyncio.to_thread(over):
            assert time.monotonic() < deadline
        check_index_parity(gateway, 6)
