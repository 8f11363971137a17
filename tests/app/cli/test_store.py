"""`ttcl store` as people and scripts run it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.app.cli.test_rules import Run, embeddings, line, new_database, rows, ttcl

__all__ = ["embeddings", "new_database", "ttcl"]


def test_a_store_is_copied_and_brought_up_to_date(ttcl: Run, tmp_path: Path) -> None:
    ttcl("rules", "import", "-", given=line(1))
    here, there = "data/ttcl.db", f"sqlite:///{tmp_path / 'there' / 'ttcl.db'}"
    done = ttcl("store", "copy", here, there)
    assert "copied: " in done.stdout
    assert "TTCL_DATABASE_URL" in done.stderr
    ttcl("rules", "import", "-", given=line(2))
    (told,) = rows(ttcl("store", "copy", here, there, "--json"))
    assert told["resumed"]
    assert told["rows"]["rules"] == 2
    assert 0 < told["written"] < 5
    made = tmp_path / "there"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    files = [each for each in made.iterdir() if each.is_file()]
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert made / "ttcl.db" in files


def test_what_stands_in_the_way_is_one_sentence_without_the_password(ttcl: Run) -> None:
    ttcl("rules", "import", "-", given=line(1))
    for arguments, said in (
        (("none.db", "new.db"), "no such file"),
        (("data/ttcl.db", "data/ttcl.db"), "is not empty"),
        (("data/ttcl.db", "mysql://u:geheim@h/d"), "not supported"),
        (("data/ttcl.db", "postgresql://u:ge@heim@/#:x@127.0.0.1:1/d"), "can't be used"),
    ):
        shown = ttcl("store", "copy", *arguments, code=2).stderr
        assert said in shown
        assert "heim" not in shown
    assert json.loads(line(1))["id"] in ttcl("rules", "list").stdout
