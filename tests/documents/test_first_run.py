"""What README and docs/ print is typed as it stands, at a service that `make run` has started."""

from __future__ import annotations

import re

import pytest

from tests.documents.conftest import PRINTED, FirstRun
from tests.documents.pages import ROOT, blocks, session

pytestmark = pytest.mark.engine
DOCS = ROOT / "docs"


def test_the_first_screen_says_what_it_costs_and_how_to_stop_it(first_run: FirstRun) -> None:
    screen = first_run.screen
    for said in ("upstream calls", "TTCL_LEARN=false", "TTCL_MODE=off", "/console", "admin.key"):
        assert said in screen, screen
    assert "answer: " in screen
    # Nothing is learned from a question that nobody asked for.
    assert "with 0 rules" in screen


def test_the_curl_lines_of_the_first_screen_work(first_run: FirstRun) -> None:
    lines = [line.strip() for line in first_run.screen.splitlines() if "curl http" in line]
    assert len(lines) == 2
    for line in lines:
        done = first_run.type(line.replace("curl ", "curl -sS --fail-with-body "))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["asking.md", "admin.md"])
def test_a_page_works_as_it_is_written(first_run: FirstRun, page: str) -> None:
    done = first_run.type(session(DOCS / page))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_python_lines_work(first_run: FirstRun) -> None:
    (block,) = [each for each in blocks(DOCS / "asking.md") if each.language == "python"]
    done = first_run.type(f"python3 - <<'END'\n{block.text}\nEND\n")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[.*\]$", done.stdout)
    assert PRINTED in block.text
