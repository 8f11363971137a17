"""`ttcl rules` as people and scripts run it: a process, a database file, JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ScriptedUpstream

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embeddings() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def ttcl(tmp_path: Path, embeddings: ScriptedUpstream) -> Run:
    """`ttcl ARGUMENTS` on a database of its own; `code` is the exit code that is expected."""
    environment = {name: value for name, value in os.environ.items() if "TTCL" not in name}
    environment |= {
        "TTCL_DATA_DIR": str(tmp_path / "data"),
        "TTCL_EMBEDDING_BASE_URL": embeddings.base_url,
        "TTCL_EMBEDDING_MODEL": "hash-384",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }

    def run(*arguments: str, code: int = 0, given: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def line(number: int, **more: Any) -> str:
    text = f"Count the apples in step {number}."
    rule = {"namespace": "shop", "polarity": "positive", "text": text, "id": f"rule_{number}"}
    return json.dumps({**rule, **more})


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
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
    assert [row["id"] for row in rows(preview)] == ["rule_1", "rule_3"]
    pruning = ("rules", "prune", "shop", "--policy", "utility", "--max", "1")
    ttcl(*pruning, given="n\n", code=1)
    assert len(rows(ttcl("rules", "list", "--state", "active", "--json"))) == 3
    shown = ttcl(*pruning, given="y\n")
    assert "Count the apples in step 1." in shown.stdout
    assert "2 rules retired" in shown.stderr
    assert [row["id"] for row in rows(ttcl("rules", "list", "--state", "active", "--json"))] == [
        "rule_4"
    ]

    events = rows(ttcl("rules", "history", "rule_1", "--json"))
    assert [event["kind"] for event in events] == ["rule.retired", "rule.imported"]
    assert (events[1]["actor"], events[1]["reason"]) == ("ann", "moving")
    assert "state: active -> retired" in ttcl("rules", "history", "rule_1").stdout

    ttcl("rules", "export", "out.jsonl", "--state", "active")
    (kept,) = [json.loads(each) for each in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (kept["id"], kept["frequency"]) == ("rule_4", 5)
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
