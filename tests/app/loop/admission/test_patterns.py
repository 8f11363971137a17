"""Every pattern by the two texts that stand beside it, and on long runs of one sign."""

from __future__ import annotations

import time

import pytest
import yaml
from pydantic import ValidationError

from app.loop.admission import pattern_files
from app.loop.admission.languages import ORDERS, tongue
from app.loop.admission.obfuscation import readings
from app.loop.admission.pattern_files import Pattern, load
from app.loop.admission.pipeline import CHECKS, findings

FILES = ("form", "harm", "orders", "personal_data")
PATTERNS = [
    *(
        (reason, number, pattern)
        for file in FILES
        for reason, check in load(file).items()
        for number, pattern in enumerate(check.patterns, 1)
    ),
    *(("foreign_order", language, check.patterns[0]) for language, check in ORDERS.items()),
]
each_pattern = pytest.mark.parametrize(
    ("reason", "pattern"),
    [pytest.param(reason, each, id=f"{reason}-{number}") for reason, number, each in PATTERNS],
)

RUNS = (" ", "-", "[", "]", "\\", "_", "'", "=", "\n", "a", "A", "1", "a-", "a.", "1 ", "a@", "\n ")


@each_pattern
def test_a_pattern_refuses_its_text_and_lets_the_near_one_pass(
    reason: str, pattern: Pattern
) -> None:
    assert reason in {finding.name for finding in findings(pattern.refuses)}
    assert any(
        pattern.regex.search(text) for text in (pattern.refuses, *readings(pattern.refuses))
    ), "another pattern refuses it"
    assert findings(pattern.passes) == []


def test_every_file_is_read_and_every_reason_is_a_check() -> None:
    found = {path.stem for path in pattern_files.FOLDER.iterdir()}
    assert found == {*FILES, "languages"}
    assert {reason for reason, _, _ in PATTERNS} <= {name for name, _ in CHECKS}


@pytest.mark.parametrize("language", ORDERS)
def test_texts_of_a_language_are_in_it(language: str) -> None:
    (pattern,) = ORDERS[language].patterns
    assert (tongue(pattern.refuses), tongue(pattern.passes)) == (language, language)


@each_pattern
def test_a_pattern_is_linear_in_a_long_run(reason: str, pattern: Pattern) -> None:
    """A quadratic one would take minutes for these."""
    started = time.process_time()
    for run in RUNS:
        for lead in ("", pattern.refuses[:20]):
            list(pattern.regex.finditer(lead + run * (10_000 // len(run))))
    assert time.process_time() - started < 5


def test_a_wrong_file_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_files, "FOLDER", tmp_path)
    right = {"pattern": "a<B>c\n\\b\n", "refuses": "abc", "passes": "acb"}
    for entry in ({**right, "reason": "x"}, {"pattern": "a", "refuses": "a"}):
        content = {"checks": {"name": {"patterns": [entry]}}, "words": {"B": "b\n"}}
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ValidationError):
            load("wrong")
    content = {"checks": {"name": {"patterns": [right]}}, "words": {"B": "b\n"}}
    (tmp_path / "right.yaml").write_text(yaml.safe_dump(content))
    assert load("right")["name"].patterns[0].pattern == r"abc\b"
