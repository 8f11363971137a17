"""What README and docs/ print is typed as it stands, at a service that `make run` has started."""

from __future__ import annotations

import re

import pytest

from tests.documents.conftest import PRINTED, FirstRun
from tests.documents.pages import PAGES, ROOT, blocks, session

pytestmark = pytest.mark.engine
DOCS = ROOT / "docs"
# In the order of a reader: once a key was made (admin.md), nobody gets in without one.
SESSIONS = [("asking.md",), ("benchmarks.md",), ("admin.md", "effect.md")]


def test_the_first_screen_says_what_it_costs_and_how_to_stop_it(first_run: FirstRun) -> None:
    screen = first_run.screen
    for said in ("upstream call", "TTCL_LEARN=false", "TTCL_MODE=off", "/console", "admin.key"):
        assert said in screen, screen
    assert "answer: " in screen
    assert "nothing was learned from it" in screen


def test_the_curl_lines_of_the_first_screen_work(first_run: FirstRun) -> None:
    lines = [line.strip() for line in first_run.screen.splitlines() if "curl http" in line]
    assert len(lines) == 2
    for line in lines:
        done = first_run.type(line.replace("curl ", "curl -sS --fail-with-body "))
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_lines_work(first_run: FirstRun) -> None:
    (block,) = [each for each in blocks(DOCS / "asking.md") if each.language == "python"]
    done = first_run.type(f"python3 - <<'END'\n{block.text}\nEND\n")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[.*\]$", done.stdout)
    assert PRINTED in block.text


def test_every_page_that_is_to_be_typed_is_here() -> None:
    typed = {page.name for page in PAGES if session(page)}
    assert typed == {page for pages in SESSIONS for page in pages}


@pytest.mark.parametrize("pages", SESSIONS, ids=" ".join)
def test_pages_work_as_they_are_written(first_run: FirstRun, pages: tuple[str, ...]) -> None:
    done = first_run.type("\n".join(session(DOCS / page) for page in pages))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
