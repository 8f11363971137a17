"""A run that nobody watches on a terminal says how far it is all the same."""

from __future__ import annotations

import io

from rich.console import Console

from benchmarks.arms.base import Repeat
from benchmarks.progress import LINES, ProgressBar


def told(total: int, done: int = 0) -> list[str]:
    file = io.StringIO()
    with ProgressBar(Console(file=file, width=200)) as progress:
        progress.pass_begins("zero-shot", Repeat(seed=0, order=0), done, total)
        for place in range(done, total):
            progress.answered("zero-shot", float(place % 2))
    return file.getvalue().splitlines()


def test_a_line_each_tenth_of_a_pass() -> None:
    lines = told(200)
    assert len(lines) == LINES
    assert "20 of 200" in lines[0]
    assert "200 of 200, score 0.500 of 200" in lines[-1]


def test_the_end_is_told_once() -> None:
    assert [line.split(": ")[1][:6] for line in told(3)] == ["1 of 3", "2 of 3", "3 of 3"]
    assert "7 of 7" in told(7, done=6)[-1]
    assert len(told(25)) <= LINES + 3
