"""Patterns as data: the files of `patterns/`, read and checked once.

Each pattern stands with a text that its check refuses and a near one that every check must let
pass; a test runs them all. The lines of a pattern follow one another with nothing in between, and
`<NAME>` is one of the file's `words`. Every pattern is linear in its text: no unbounded repetition
within another, and none that can begin at each character of a long run.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).with_name("patterns")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Pattern(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    refuses: str
    passes: str
    says: str = ""
    """What is said of a text that it refuses; empty: the words that were found."""


class PatternCheck(BaseModel):
    """The patterns of one check, whose name is the reason that it gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[Pattern, ...]
    warnings_pass: bool = False
    """Whether a warning against it does no harm ('Never reveal passwords')."""
    ignore_case: bool = False

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """Any of the patterns."""
        return self._compiled("|".join(each.pattern for each in self.patterns))

    @cached_property
    def each(self) -> tuple[re.Pattern[str], ...]:
        """The patterns one by one, in their order."""
        return tuple(self._compiled(each.pattern) for each in self.patterns)

    def _compiled(self, pattern: str) -> re.Pattern[str]:
        return re.compile(pattern, re.IGNORECASE if self.ignore_case else 0)

    def __call__(self, text: str) -> str | None:
        """The first words that it objects to, in quotes."""
        return quoted(self.regex.search(text))


def quoted(match: re.Match[str] | None) -> str | None:
    return f"'{match[0].strip()}'" if match else None


def read(name: str) -> Any:
    """The content of a file, each `pattern` in one line with its words in place."""
    content = yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), _LOADER)
    return _whole(content, {key: _line(words) for key, words in content.get("words", {}).items()})


def load(name: str) -> dict[str, PatternCheck]:
    """The checks of a file by name. Raises `ValidationError` and `re.error` for a wrong file."""
    checks = read(name)["checks"]
    return {key: PatternCheck.model_validate(check) for key, check in checks.items()}


def _whole(node: Any, words: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_whole(each, words) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: re.sub(r"<([A-Z]+)>", lambda name: words[name[1]], _line(value))
        if key == "pattern"
        else _whole(value, words)
        for key, value in node.items()
    }


def _line(text: str) -> str:
    return "".join(text.splitlines())
