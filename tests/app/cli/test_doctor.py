"""`ttcl doctor` on installations in many states."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import doctor
from app.cli.doctor import Check, CheckStatus
from app.settings import Settings
from rules_store.models.events import Change
from rules_store.models.keys import NewKey, Permission
from rules_store.store import RuleStore
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import MODEL

ROOT = Path(__file__).parents[3]
NAMES = [
    *("data folder", "prompts", "admin key", "database"),
    *("keys", "embeddings", "model server", "cost"),
]


@pytest.fixture
def settings(tmp_path: Path, upstream: ScriptedUpstream) -> dict[str, Any]:
    """Of an installation that works, before its first start; embeddings come from the upstream."""
    return {
        "data_dir": tmp_path / "data",
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "embedder",
    }


def examine(**settings: Any) -> dict[str, Check]:
    async def run() -> list[Check]:
        return [check async for check in doctor.examine(Settings(_env_file=None, **settings))]

    return {check.name: check for check in asyncio.run(run())}


async def _start(settings: dict[str, Any], keys: int = 0) -> None:
    """What a first start leaves behind."""
    data_dir: Path = settings["data_dir"]
    store = await RuleStore.open(
        f"sqlite:///{data_dir / 'ttcl.db'}", embedding_model="embedder", data_dir=data_dir
    )
    for _ in range(keys):
        new = NewKey("k", ("a",), (Permission.CHAT,))
        await store.keys.create(new, change=Change("tester", "test"))
    await store.close()


def test_before_the_first_start_nothing_is_made(settings: dict[str, Any], tmp_path: Path) -> None:
    checks = examine(**settings)
    assert list(checks) == NAMES
    assert {check.verdict for check in checks.values()} == {CheckStatus.OK, CheckStatus.WARN}
    assert checks["keys"].verdict is CheckStatus.WARN
    assert "keys create" in checks["keys"].advice
    assert MODEL in checks["model server"].said
    assert list(tmp_path.iterdir()) == []


def test_after_it_all_is_well(settings: dict[str, Any]) -> None:
    asyncio.run(_start(settings, keys=2))
    checks = examine(**settings, api_keys=("one",))
    assert {check.verdict for check in checks.values()} == {CheckStatus.OK}
    assert list(checks) == [*NAMES[:5], "index", *NAMES[5:]]
    assert "1 in TTCL_API_KEYS, 2 live" in checks["keys"].said
    assert "current" in checks["database"].said


def test_what_a_model_refuses_is_said(settings: dict[str, Any], upstream: ScriptedUpstream) -> None:
    upstream.when(lambda body: "seed" in body, Reply.error(400, "Unknown parameter", param="seed"))
    assert f"{MODEL} refuses seed" in examine(**settings)["model server"].said
    upstream.reset()
    assert f"{MODEL} takes all that is sent" in examine(**settings)["model server"].said
    upstream.when("Ready?", Reply.error(400, "no chat template"))
    assert f"{MODEL} can't chat (no chat template)" in examine(**settings)["model server"].said


def test_what_does_not_answer_is_said(settings: dict[str, Any], upstream: ScriptedUpstream) -> None:
    upstream.down()
    checks = examine(**settings)
    for name in ("embeddings", "model server"):
        assert checks[name].verdict is CheckStatus.FAIL
        assert "TTCL_" in checks[name].advice


def test_a_model_that_is_not_there_is_said(settings: dict[str, Any]) -> None:
    checks = examine(**settings, upstream_model="another")
    assert checks["model server"].verdict is CheckStatus.WARN
    assert "not another" in checks["model server"].said
    del settings["upstream_base_url"]
    checks = examine(**settings, engine_model="/no/such/file.gguf")
    assert checks["model server"].verdict is CheckStatus.FAIL


def test_broken_files_are_said(settings: dict[str, Any], tmp_path: Path) -> None:
    data_dir: Path = settings["data_dir"]
    data_dir.mkdir()
    (data_dir / "ttcl.db").write_bytes(b"no database" * 1000)
    (data_dir / "admin.key").write_text("\n")
    (tmp_path / "prompts").mkdir()
    checks = examine(**settings, prompts_dir=tmp_path / "prompts")
    for name in ("database", "admin key", "prompts"):
        assert checks[name].verdict is CheckStatus.FAIL, checks[name]
    assert "keys" not in checks
    (data_dir / "admin.key").write_text("secret\n")
    (data_dir / "admin.key").chmod(0o644)
    assert "chmod 600" in examine(**settings)["admin key"].advice


def test_an_older_schema_and_an_unknown_one(settings: dict[str, Any]) -> None:
    asyncio.run(_start(settings))
    path = settings["data_dir"] / "ttcl.db"
    for revision, verdict in (("0001", CheckStatus.WARN), ("9999", CheckStatus.FAIL)):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.close()
        assert examine(**settings)["database"].verdict is verdict


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(settings: dict[str, Any]) -> None:
    settings["data_dir"].mkdir(mode=0o500)
    assert examine(**settings)["data folder"].verdict is CheckStatus.FAIL


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "app.cli", "doctor", *arguments]
    return subprocess.run(
        command, cwd=folder, env=given, capture_output=True, text=True, timeout=120
    )


def test_the_command_ends_with_1_where_it_cannot_work(
    settings: dict[str, Any], tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    given = {f"TTCL_{name.upper()}": str(value) for name, value in settings.items()}
    done = run(tmp_path, "--json", **given)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["name"] for line in lines] == ["settings", *NAMES]
    assert {line["verdict"] for line in lines} == {"ok", "warn"}
    upstream.down()
    done = run(tmp_path, **given)
    assert done.returncode == 1
    assert "fail model server" in done.stdout
    assert done.stdout.count("\n") == len(lines)


def test_a_misspelt_setting_is_a_line_too(tmp_path: Path) -> None:
    done = run(tmp_path, TTCL_UPSTREAM="x")
    assert done.returncode == 1
    assert done.stdout.startswith("fail settings")
    assert "TTCL_UPSTREAM" in done.stdout


def test_the_distiller_is_asked_as_rules_are(
    settings: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    assert "distiller" not in examine(**settings)
    upstream.when("ready", Reply.of_json({"ready": "yes"}))
    found = examine(**settings, distiller_model=MODEL)["distiller"]
    assert (found.verdict, found.said) == (CheckStatus.OK, f"{upstream.base_url}: {MODEL} answers")
    other = examine(**settings, distiller_model="another")["distiller"]
    assert other.verdict is CheckStatus.WARN
    assert "another" in other.said
    assert "served model writes" in other.advice
    elsewhere = {"distiller_base_url": upstream.base_url, "distiller_model": MODEL}
    upstream.down()
    assert examine(**settings, **elsewhere)["distiller"].verdict is CheckStatus.WARN


def test_what_others_can_read_and_who_could_ask_is_said(settings: dict[str, Any]) -> None:
    asyncio.run(_start(settings))
    folder = settings["data_dir"]
    assert examine(**settings)["data folder"].verdict is CheckStatus.OK
    folder.chmod(0o755)
    (folder / "ttcl.db").chmod(0o644)
    checks = examine(**settings, host="0.0.0.0")
    assert checks["data folder"].verdict is CheckStatus.WARN
    assert checks["data folder"].advice == f"chmod go= {folder} {folder / 'ttcl.db'}"
    assert checks["keys"].verdict is CheckStatus.FAIL
    url = "postgresql://ttcl:ge/heim@#1@127.0.0.1:1/store"
    shown = examine(**settings, database_url=url)["database"]
    assert shown.verdict is CheckStatus.FAIL
    assert "postgresql://ttcl@127.0.0.1:1/store" in shown.said
    assert "heim" not in repr(shown)
