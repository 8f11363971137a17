"""`ttcl namespaces` and `ttcl rules rollback` as people and scripts run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.app.cli.test_rules import Run, embeddings, new_database, ttcl

__all__ = ["embeddings", "new_database", "ttcl"]


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def one(text: str) -> dict[str, Any]:
    (only,) = told(text)
    return only


def rules_of(ttcl: Run) -> dict[str, str]:
    """Text -> state."""
    return {r["text"]: r["state"] for r in told(ttcl("rules", "list", "--json").stdout)}


def bring(ttcl: Run, *texts: str) -> None:
    lines = [json.dumps({"polarity": "positive", "text": text}) for text in texts]
    ttcl("rules", "import", "-", "--namespace", "maths", given="\n".join(lines))


def test_a_namespace_from_its_making_to_its_end(ttcl: Run) -> None:
    made = one(ttcl("namespaces", "create", "maths", "capacity=5", "--json").stdout)
    assert (made["name"], made["settings"]["capacity"]) == ("maths", 5)
    assert "already" in ttcl("namespaces", "create", "maths", code=2).stderr
    ttcl("namespaces", "set", "maths", "learn=false", "sample_rate=0.5", "pruning=similarity")
    ttcl("namespaces", "set", "maths", "capacity=")
    shown = one(ttcl("namespaces", "show", "maths", "--json").stdout)
    assert {k: v for k, v in shown["settings"].items() if v is not None} == {
        "learn": False,
        "sample_rate": 0.5,
        "pruning": "similarity",
    }
    assert "settings.learn" in ttcl("namespaces", "show", "maths").stdout
    ttcl("namespaces", "freeze", "maths")
    assert "frozen" in ttcl("namespaces", "list").stdout
    assert "frozen" in ttcl("namespaces", "set", "maths", "learn=true", code=2).stderr
    ttcl("namespaces", "unfreeze", "maths")
    assert [n["name"] for n in told(ttcl("namespaces", "list", "--json").stdout)] == ["maths"]
    assert "--confirm" in ttcl("namespaces", "delete", "maths", "--confirm", "x", code=2).stderr
    ttcl("namespaces", "delete", "maths", "--confirm", "maths")
    assert ttcl("namespaces", "list", "--json").stdout == ""
    assert "maths" in ttcl("namespaces", "show", "maths", code=2).stderr


@pytest.mark.parametrize(
    "wrong", ["learn", "learn=maybe", "capacity=many", "capacity=0", "colour=red", "policy=free"]
)
def test_a_wrong_setting_is_named(ttcl: Run, wrong: str) -> None:
    said = ttcl("namespaces", "create", "maths", wrong, code=2).stderr
    assert wrong.split("=")[0] in said
    assert ttcl("namespaces", "list", "--json").stdout == ""


@pytest.mark.parametrize("area", ["namespaces", "rules"])
def test_a_rollback_is_shown_done_and_undone(ttcl: Run, area: str) -> None:
    ttcl("namespaces", "create", "maths")
    bring(ttcl, "Count what is taken away.")
    ttcl("namespaces", "snapshot", "maths", "good")
    bring(ttcl, "Guess wildly.")
    full = rules_of(ttcl)
    back = (area, "rollback", "maths", "--to-snapshot", "good")
    assert "Guess wildly." in ttcl(*back, "--dry-run").stdout
    assert one(ttcl(*back, "--dry-run", "--json").stdout)["changed"] == 1
    ttcl(*back, code=1, given="n\n")
    assert rules_of(ttcl) == full
    done = one(ttcl(*back, "--yes", "--json").stdout)
    assert rules_of(ttcl) == {"Count what is taken away.": "active", "Guess wildly.": "retired"}
    ttcl(area, "rollback", "maths", "--to-event", str(done["before_event"]), "--yes")
    assert rules_of(ttcl) == full
    assert "exactly one" in ttcl(area, "rollback", "maths", code=2).stderr
    assert "no event" in ttcl(area, "rollback", "maths", "--to-event", "999", code=2).stderr


def test_what_happens_while_a_rollback_asks_stops_it(
    ttcl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ttcl("namespaces", "create", "maths")
    ttcl("namespaces", "snapshot", "maths", "good")
    bring(ttcl, "Shown.")

    def meanwhile(*_: Any, **__: Any) -> bool:
        bring(ttcl, "Not shown.")
        return True

    monkeypatch.setattr(typer, "confirm", meanwhile)
    back = ("namespaces", "rollback", "maths", "--to-snapshot", "good")
    assert "changed since the preview" in ttcl(*back, code=2).stderr
    assert rules_of(ttcl) == {"Shown.": "active", "Not shown.": "active"}


def test_a_namespace_goes_out_and_comes_in_again(ttcl: Run, tmp_path: Path) -> None:
    bring(ttcl, "Add the parts.", "Take away.")
    ttcl("namespaces", "export", "maths", "maths.jsonl")
    assert "already" in ttcl("namespaces", "import", "maths.jsonl", code=2).stderr
    ttcl("namespaces", "delete", "maths", "--confirm", "maths")
    done = one(ttcl("namespaces", "import", "maths.jsonl", "--trust", "--json").stdout)
    assert (done["name"], done["rows"]["rules"], done["trusted"]) == ("maths", 2, True)
    assert rules_of(ttcl) == {"Add the parts.": "active", "Take away.": "active"}
    ttcl("namespaces", "delete", "maths", "--confirm", "maths")
    content = (tmp_path / "maths.jsonl").read_text()
    shown = ttcl("namespaces", "import", "-", "--namespace", "other", given=content)
    assert "other: " in shown.stdout
    for wrong, said in (
        ('{"table": "rules", "row": {"id": "x"}}', "line 1: rules."),
        ("not JSON", "line 1: not JSON"),
        ("[]", "line 1: not"),
        ("", "namespaces"),
        (content.replace("Add the parts.", "x" * 5000), "rules.text"),
        (content.replace('"positive"', '"sideways"'), "rules.polarity"),
    ):
        assert said in ttcl("namespaces", "import", "-", given=wrong, code=2).stderr
    assert "nowhere" in ttcl("namespaces", "import", "nowhere", code=2).stderr
    assert "--namespace" in ttcl("namespaces", "import", "-", "--namespace", "a b", code=2).stderr
