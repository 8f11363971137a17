"""Every pattern by the two texts that stand beside it, and on long runs of one sign."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from pydantic import ValidationError

from app.loop.admission import pattern_files
from app.loop.admission.languages import ORDERS, tongue
from app.loop.admission.obfuscation import readings
from app.loop.admission.pattern_files import Pattern, load
from app.loop.admission.pipeline import CHECKS, findings

FILES = ("encoded", "form", "harm", "orders", "personal_data")
CHECKS_OF_FILES = [
    *((reason, "", check) for file in FILES for reason, check in load(file).items()),
    *(("foreign_order", f" {language}", check) for language, check in ORDERS.items()),
]
each_pattern = pytest.mark.parametrize(
    ("reason", "pattern", "regex"),
    [
        pytest.param(reason, pattern, regex, id=f"{reason}{of} {number}")
        for reason, of, check in CHECKS_OF_FILES
        for number, (pattern, regex) in enumerate(zip(check.patterns, check.each, strict=True), 1)
    ],
)

RUNS = (" ", "-", "[", "]", "\\", "_", "'", "=", "\n", "a", "A", "1", "a-", "a.", "1 ", "a@", "\n ")


@each_pattern
def test_a_pattern_refuses_its_text_and_lets_the_near_one_pass(
    reason: str, pattern: Pattern, regex: re.Pattern[str]
) -> None:
    assert reason in {finding.name for finding in findings(pattern.refuses)}
    found = [regex.search(text) for text in (pattern.refuses, *readings(pattern.refuses))]
    assert any(found), "another pattern refuses it"
    assert findings(pattern.passes) == []


def test_every_file_is_read_and_every_reason_is_a_check() -> None:
    found = {path.stem for path in pattern_files.FOLDER.iterdir()}
    assert found == {*FILES, "languages"}
    assert {reason for reason, _, _ in CHECKS_OF_FILES} <= {name for name, _ in CHECKS}


@pytest.mark.parametrize("language", ORDERS)
def test_texts_of_a_language_are_in_it(language: str) -> None:
    (pattern,) = ORDERS[language].patterns
    assert (tongue(pattern.refuses), tongue(pattern.passes)) == (language, language)


@each_pattern
def test_a_pattern_is_linear_in_a_long_run(
    reason: str, pattern: Pattern, regex: re.Pattern[str]
) -> None:
    """A quadratic one would take minutes for these."""
    started = time.process_time()
    for run in RUNS:
        for lead in ("", pattern.refuses[:20]):
            list(regex.finditer(lead + run * (10_000 // len(run))))
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
