"""`ttcl rules` as people and scripts run it: arguments, a database file, JSON lines, exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.api.jsonl import packed
from app.cli import main
from rules_store.database import migrate
from rules_store.options import DEFAULT_OPTIONS
from tests.fakes import ScriptedUpstream, bag_of_words


@dataclass
class Done:
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def embeddings() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as a first start makes it."""
    path: Path = tmp_path_factory.mktemp("new") / "ttcl.db"
    asyncio.run(migrate.upgrade(f"sqlite:///{path}", DEFAULT_OPTIONS))
    return path


@pytest.fixture
def ttcl(
    tmp_path: Path,
    new_database: Path,
    embeddings: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """`ttcl ARGUMENTS` on a database of its own; `code` is the exit code that is expected."""
    for name in [name for name in os.environ if name.startswith("TTCL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TTCL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TTCL_EMBEDDING_BASE_URL", embeddings.base_url)
    monkeypatch.setenv("TTCL_EMBEDDING_MODEL", "hash-384")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(new_database, tmp_path / "data")

    def run(*arguments: str, code: int = 0, given: str = "") -> Done:
        # A process for each would take longer to start than all of this.
        monkeypatch.setattr(sys, "argv", ["ttcl", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        try:
            main()
            ended: Any = 0
        except SystemExit as error:
            ended = error.code
        said = capsys.readouterr()
        assert (ended or 0) == code, said.err
        return Done(said.out, said.err)

    return run


def line(number: int, **more: Any) -> str:
    text = f"Count the apples in step {number}."
    rule = {"namespace": "shop", "polarity": "positive", "text": text, "id": f"rule_no_{number}"}
    return json.dumps({**rule, **more})


def rows(done: Done) -> list[dict[str, Any]]:
    return [json.loads(each) for each in done.stdout.splitlines()]


def test_a_rule_base_is_moved_pruned_and_looked_at(ttcl: Run, tmp_path: Path) -> None:
    given = "\n".join([line(1), line(2, polarity="maybe"), line(3), line(4, frequency=5)])
    dry = rows(ttcl("rules", "import", "-", "--dry-run", "--json", given=given, code=1))
    assert (dry[0]["imported"], dry[0]["dry_run"]) == (3, True)
    done = ttcl("rules", "import", "-", "--actor", "ann", "--reason", "moving", given=given, code=1)
    assert "3 imported, 0 there already, 1 refused" in done.stdout
    assert "line 2: polarity" in done.stderr
    assert "3 rules wait for a running gateway" in done.stderr

    preview = ttcl(
        "rules", "prune", "shop", "--policy", "utility", "--max", "1", "--dry-run", "--json"
    )
    assert [row["id"] for row in rows(preview)] == ["rule_no_1", "rule_no_3"]
    pruning = ("rules", "prune", "shop", "--policy", "utility", "--max", "1")
    ttcl(*pruning, given="n\n", code=1)
    assert len(rows(ttcl("rules", "list", "--state", "active", "--json"))) == 3
    shown = ttcl(*pruning, given="y\n")
    assert "Count the apples in step 1." in shown.stdout
    assert "2 rules retired" in shown.stderr
    assert [row["id"] for row in rows(ttcl("rules", "list", "--state", "active", "--json"))] == [
        "rule_no_4"
    ]

    events = rows(ttcl("rules", "history", "rule_no_1", "--json"))
    assert [event["kind"] for event in events] == ["rule.retired", "rule.imported"]
    assert (events[1]["actor"], events[1]["reason"]) == ("ann", "moving")
    assert "state: active -> retired" in ttcl("rules", "history", "rule_no_1").stdout

    ttcl("rules", "export", "out.jsonl", "--state", "active")
    (kept,) = [json.loads(each) for each in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (kept["id"], kept["frequency"]) == ("rule_no_4", 5)
    assert rows(ttcl("rules", "export", "--state", "active")) == [kept]
    again = rows(ttcl("rules", "import", "out.jsonl", "--json"))
    assert (again[0]["imported"], again[0]["skipped"]) == (0, 1)


def test_explain_loads_the_embedder_and_shows_the_prompt(ttcl: Run) -> None:
    given = "\n".join([line(1), line(2, state="quarantined")])
    ttcl("rules", "import", "-", given=given)
    (told,) = rows(ttcl("rules", "explain", "count apples", "--namespace", "shop", "--json"))
    assert told["messages"] == [{"role": "user", "content": "count apples"}]
    assert "user" in ttcl("rules", "explain", "count apples", "--namespace", "shop").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prune", "shop", "--policy", "fifo"), "--max"),
        (("prune", "nowhere", "--policy", "fifo", "--max", "1"), "no namespace 'nowhere'"),
        (("explain", "x", "--namespace", "nowhere"), "no namespace 'nowhere'"),
        (("history", "rule_none"), "no rule 'rule_none'"),
        (("import", "nowhere.jsonl"), "nowhere.jsonl"),
        (("import", "-", "--namespace", "a b"), "--namespace"),
        (("export", "no/such/folder/file"), "no/such/folder/file"),
    ],
)
def test_a_mistake_is_one_sentence(ttcl: Run, arguments: tuple[str, ...], said: str) -> None:
    done = ttcl("rules", *arguments, code=2)
    assert said in done.stderr
    assert done.stdout == ""


def test_an_import_keeps_vectors_also_into_an_empty_database(ttcl: Run) -> None:
    """They are as long as the embedding model's: the file's word would be the measure of all."""
    text = "Count the apples in step 1."
    vector = packed(bag_of_words([text], 384)[0])
    carried = {"embedding_model": "hash-384", "vectors": {"text": vector, "trigger": None}}
    short = {
        "embedding_model": "hash-384",
        "vectors": {"text": packed(np.ones(3)), "trigger": None},
    }
    given = "\n".join([line(1, **carried), line(2, **short)])
    (told,) = rows(ttcl("rules", "import", "-", "--json", given=given, code=1))
    assert (told["imported"], told["unembedded"]) == (1, 0)
    assert told["refused"][0]["reason"].startswith("vectors.text")
    (kept,) = rows(ttcl("rules", "export"))
    assert kept["vectors"]["text"] == vector


def test_what_is_trusted_brings_its_evidence(ttcl: Run) -> None:
    evidence = {"at": "2026-01-01T00:00:00+00:00", "with_hits": 4.0, "proven": True}
    ttcl("rules", "import", "-", given=line(1, evidence=evidence))
    ttcl("rules", "import", "-", "--trust", given=line(2, evidence=evidence))
    probation, trusted = sorted(rows(ttcl("rules", "export")), key=lambda row: row["id"])
    assert "evidence" not in probation
    assert trusted["evidence"]["proven"]
    assert 0 < trusted["evidence"]["with_hits"] < 4
    wrong = {**evidence, "with_hits": -1}
    (told,) = rows(ttcl("rules", "import", "-", "--json", given=line(3, evidence=wrong), code=1))
    assert told["refused"][0]["reason"].startswith("evidence.with_hits")
