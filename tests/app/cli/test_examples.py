"""`ttcl examples` as people and scripts run it: arguments, a database file, JSON lines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.settings import load_settings
from app.wiring.factories import opened_store
from rules_store.models.events import Change
from rules_store.models.examples import NewExample, Trust
from tests.app.cli.test_rules import Run, embeddings, new_database, rows, ttcl

__all__ = ["embeddings", "new_database", "ttcl"]

QUESTION = "My card was charged twice for one coffee"
WHY = ("--actor", "ann", "--reason", "a test")


def add(ttcl: Run, question: str = QUESTION, answer: str = "charged_twice", *more: str) -> Any:
    return rows(ttcl("examples", "add", "shop", question, answer, *more, *WHY, "--json"))[0]


def line(number: int, **more: Any) -> str:
    row = {"namespace": "shop", "question": f"Question number {number} of many", "answer": "yes"}
    return json.dumps({**row, "id": f"example_no_{number}", **more})


def test_an_example_is_written_changed_and_moved(ttcl: Run) -> None:
    made = add(ttcl, QUESTION, "charged_twice", "--label", "twice", "--expires", "2031-01-01")
    assert (made["state"], made["trust"], made["label"]) == ("active", "label", "twice")
    assert made["expires_at"] == "2031-01-01T00:00:00+00:00"
    one = made["id"]
    edited = rows(
        ttcl(
            "examples", "edit", one, "--answer", "Twice.", "--label", "", "--expires", "", "--json"
        )
    )[0]
    assert (edited["answer"], edited["label"], edited["expires_at"]) == ("Twice.", None, None)
    assert (edited["question"], edited["version"]) == (QUESTION, 2)
    for verb, state in (
        ("retire", "retired"),
        ("restore", "active"),
        ("quarantine", "quarantined"),
        ("release", "active"),
    ):
        assert rows(ttcl("examples", verb, one, *WHY, "--json"))[0]["state"] == state
    assert (
        "is at version 6, not 1"
        in ttcl("examples", "retire", one, "--expected-version", "1", code=2).stderr
    )
    events = rows(ttcl("examples", "history", one, "--json"))
    assert [each["kind"] for each in events][-2:] == ["example.patched", "example.created"]
    assert (events[0]["actor"], events[0]["reason"]) == ("ann", "a test")
    assert "state: quarantined -> active" in ttcl("examples", "history", one).stdout
    shown = ttcl("examples", "show", one).stdout
    assert QUESTION in shown
    assert "example.created" in shown
    assert rows(ttcl("examples", "show", one, "--json"))[0]["history"][-1]["actor"] == "ann"


def test_what_belongs_to_somebody_waits_in_quarantine(ttcl: Run) -> None:
    done = ttcl("examples", "add", "shop", "Whom do I write to?", "ann@example.com")
    assert "quarantined" in done.stdout
    assert "in quarantine: personal_data: e-mail" in done.stderr


def test_lists_are_filtered(ttcl: Run) -> None:
    given = "\n".join(
        [line(1), line(2, trust="score", domain="bank"), line(3, source_episode="ep_1")]
    )
    ttcl("examples", "import", "-", given=given)

    def found(*options: str) -> list[str]:
        return [row["id"] for row in rows(ttcl("examples", "list", *options, "--json"))]

    assert found() == ["example_no_3", "example_no_2", "example_no_1"]
    assert found("--sort", "oldest", "--limit", "1") == ["example_no_1"]
    assert found("--trust", "score") == found("--domain", "bank") == ["example_no_2"]
    assert found("--episode", "ep_1") == found("--text", "NUMBER 3") == ["example_no_3"]
    assert found("--state", "retired") == []
    assert "no namespace 'other'" in ttcl("examples", "list", "--namespace", "other", code=2).stderr
    table = ttcl("examples", "list", "--namespace", "shop")
    assert "Question number 2 of many" in table.stdout
    assert "3 of 3" in table.stderr


def test_near_loads_the_embedder(ttcl: Run) -> None:
    nowhere = ("examples", "near", "card", "--namespace", "nowhere")
    assert "no namespace 'nowhere'" in ttcl(*nowhere, code=2).stderr
    held = add(ttcl, "Whom do I write to?", "ann@example.com")
    near = ("examples", "near", "Whom do I write to?", "--namespace", "shop")
    assert rows(ttcl(*near, "--json")) == []
    assert ttcl(*near, "--state", "quarantined").stdout.split()[:2] == ["id", "score"]
    assert held["state"] == "quarantined"


def test_contradictions_are_shown_and_settled(ttcl: Run) -> None:
    wrong, right = asyncio.run(contradictions())
    (pair,) = rows(ttcl("examples", "conflicts", "--namespace", "shop", "--json"))
    assert (pair["one"]["id"], pair["other"]["id"], pair["similarity"]) == (right, wrong, 1.0)
    table = ttcl("examples", "conflicts")
    assert right in table.stdout
    assert wrong in table.stdout
    assert "1 of 1" in table.stderr
    done = ttcl("examples", "settle", right, *WHY)
    assert wrong in done.stdout
    assert "0 of 0" in ttcl("examples", "conflicts").stderr
    assert "contradicts" in ttcl("examples", "settle", right, code=2).stderr


async def contradictions() -> list[str]:
    """Ids of two examples with vectors, which no command embeds."""
    vector = np.ones(384, dtype=np.float32)
    async with opened_store(load_settings()) as store:
        await store.namespaces.ensure("shop")
        ids = []
        for label in ("refund", "charged_twice"):
            new = NewExample("shop", QUESTION, label, Trust.LABEL, label=label)
            made = await store.examples.create(new, vector, change=Change("ann"))
            ids.append(made.id)
        return ids


def test_a_base_is_pruned_and_moved(ttcl: Run, tmp_path: Path) -> None:
    given = "\n".join([line(1), line(2, answer=""), line(3), line(4, trust="verifier"), "{"])
    dry = rows(ttcl("examples", "import", "-", "--dry-run", "--json", given=given, code=1))
    assert (dry[0]["imported"], dry[0]["dry_run"]) == (3, True)
    done = ttcl("examples", "import", "-", "--trust", "score", *WHY, given=given, code=1)
    assert "3 imported, 0 there already, 2 refused" in done.stdout
    assert "line 2: answer" in done.stderr
    assert "line 5: not JSON" in done.stderr
    assert "3 examples wait for a running gateway" in done.stderr
    trusts = {row["id"]: row["trust"] for row in rows(ttcl("examples", "list", "--json"))}
    assert trusts == {
        "example_no_1": "score",
        "example_no_3": "score",
        "example_no_4": "verifier",
    }

    pruning = ("examples", "prune", "shop", "--policy", "fifo", "--max", "1")
    preview = rows(ttcl(*pruning, "--dry-run", "--json"))
    assert [row["id"] for row in preview] == ["example_no_1", "example_no_3"]
    ttcl(*pruning, given="n\n", code=1)
    assert len(rows(ttcl("examples", "list", "--state", "active", "--json"))) == 3
    shown = ttcl(*pruning, given="y\n")
    assert "Question number 1 of many" in shown.stdout
    assert "2 examples retired" in shown.stderr
    (left,) = rows(ttcl("examples", "list", "--state", "active", "--json"))
    assert left["id"] == "example_no_4"

    ttcl("examples", "export", "out.jsonl", "--state", "active")
    (kept,) = [json.loads(each) for each in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (kept["id"], kept["trust"]) == ("example_no_4", "verifier")
    assert rows(ttcl("examples", "export", "--trust", "verifier")) == [kept]
    again = rows(ttcl("examples", "import", "out.jsonl", "--json"))
    assert (again[0]["imported"], again[0]["skipped"]) == (0, 1)
    held = ttcl("examples", "import", "-", given=line(9, answer="Mail ann@example.com."))
    assert "line 1: in quarantine, personal_data: e-mail" in held.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "example_none"), "no example 'example_none'"),
        (("history", "example_none"), "no example 'example_none'"),
        (("retire", "example_none"), "no example 'example_none'"),
        (("settle", "example_none"), "no example 'example_none'"),
        (("edit", "example_none"), "nothing to change"),
        (("edit", "example_none", "--answer", " "), "answer"),
        (("edit", "example_none", "--expires", "tomorrow"), "expires_at"),
        (("add", "a b", "q", "a"), "namespace"),
        (("add", "shop", " ", "a"), "question"),
        (("add", "shop", "q", "a", "--label", " "), "label"),
        (("near", " "), "QUESTION"),
        (("prune", "shop", "--policy", "fifo"), "--max"),
        (("prune", "shop", "--policy", "similarity", "--max", "1"), "fifo, age or utility"),
        (("prune", "nowhere", "--policy", "fifo", "--max", "1"), "no namespace 'nowhere'"),
        (("import", "nowhere.jsonl"), "nowhere.jsonl"),
        (("import", "-", "--namespace", "a b"), "--namespace"),
        (("export", "no/such/folder/file"), "no/such/folder/file"),
    ],
)
def test_a_mistake_is_one_sentence(ttcl: Run, arguments: tuple[str, ...], said: str) -> None:
    done = ttcl("examples", *arguments, code=2)
    assert said in done.stderr
    assert done.stdout == ""
