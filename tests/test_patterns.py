"""No pattern takes time that grows faster than the text it runs on.

Texts come from clients and models, and one that is tried in as many ways as it is long freezes the
process. Found are the patterns of every module and of the pattern files, and the literal ones
within functions.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
import rules_store
from app.loop.admission.pattern_files import PatternCheck

ROOT = Path(__file__).parents[1]
STARTS = ("", "<", "answer is ")
RUNS = (" ", "\n", "-", "*", "(", "{", "<", "\\", "1", "a", "A", "`", ".", "$", ",", "/", "'", "&#",
        "\u200b", "a ", "1 ", "1,", "\\(", "- ", "a\n")  # fmt: skip
SHORT = 2_000
"""Characters of a run."""
NOTICED = 0.005
"""Seconds for a text of twice the length below which nobody need look how it grows."""
GROWTH = 8**0.5
"""Twice the length takes twice as long, four times where a pattern is quadratic: halfway."""


def _compiled() -> Iterator[tuple[str, re.Pattern[str]]]:
    for package in (app, rules_store):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".standalone" in module.name or module.name.rpartition(".")[2].startswith("__"):
                continue
            if ".migrations" in module.name:
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                for pattern in _patterns_in(value):
                    yield f"{module.name}.{name}", pattern


def _patterns_in(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield value
    elif isinstance(value, PatternCheck):
        yield from value.each
    elif isinstance(value, dict):
        for each in value.values():
            yield from _patterns_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _patterns_in(each)


def _literal() -> Iterator[tuple[str, re.Pattern[str]]]:
    """The first argument of `re.sub(...)` and its kin."""
    for package in ("app", "rules_store"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "re"
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                    and isinstance(node.args[0].value, str)
                ):
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield where, re.compile(node.args[0].value)


_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")
FOUND = {
    pattern.pattern: (where, pattern)
    for where, pattern in (*_literal(), *_compiled())
    if _UNBOUNDED.search(pattern.pattern)
}


def _seconds(pattern: re.Pattern[str], text: str) -> float:
    """Of this thread's processor time: whoever else is at work does not count."""
    started = time.thread_time()
    for _ in pattern.finditer(text):
        pass
    return time.thread_time() - started


def _runs(start: str, length: int) -> list[str]:
    """A run of each kind behind `start`: all in one text, and each as the end of one, where what
    looks for something behind it finds nothing."""
    runs = [start + run * (length // len(run)) for run in RUNS]
    return ["\x00".join(runs), *runs]


def _slow(pattern: re.Pattern[str], start: str) -> bool:
    texts = zip(_runs(start, SHORT), _runs(start, 2 * SHORT), strict=True)
    return any(_grows(pattern, *pair) for pair in texts)


def _grows(pattern: re.Pattern[str], once: str, doubled: str) -> bool:
    if _seconds(pattern, doubled) < NOTICED:
        return False
    # Neighbours in the caches of a busy machine: the best of several, taken by turns.
    times = [(_seconds(pattern, once), _seconds(pattern, doubled)) for _ in range(5)]
    short, twice = (min(each) for each in zip(*times, strict=True))
    return twice > NOTICED and twice > GROWTH * short


def test_patterns_are_found() -> None:
    assert len(FOUND) > 100
    assert any("admission" in where for where, _ in FOUND.values())


@pytest.mark.parametrize(("where", "pattern"), FOUND.values(), ids=[w for w, _ in FOUND.values()])
def test_time_grows_with_the_text_alone(where: str, pattern: re.Pattern[str]) -> None:
    slow = [start for start in STARTS if _slow(pattern, start)]
    assert slow == [], f"{where}: {pattern.pattern}"


def test_a_quadratic_pattern_is_noticed() -> None:
    assert _slow(re.compile(r"(?:\s|x)+$"), "")
