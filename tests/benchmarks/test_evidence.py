"""The page of claims: what it says is in the reports, and README says no more."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from app.exceptions import ConfigurationError
from benchmarks.evidence import (
    DOCUMENT,
    ROOT,
    RUNS,
    ArmScore,
    Claim,
    Finding,
    Kind,
    Measured,
    Report,
    Verdict,
    findings,
    judged,
    read_claims,
    read_report,
    written,
)
from benchmarks.statistics import questions_needed

README = ROOT / "README.md"
RUNS_READMES = sorted(RUNS.rglob("README.md"))
_DIFFERENCE = re.compile(r"([+-]?\d+\.\d) \(([+-]?\d+\.\d) to ([+-]?\d+\.\d)\)")
_SCORE = re.compile(r"(?<![\d.])0\.\d{3}(?![\d.])")


def differences(text: str) -> set[tuple[float, ...]]:
    """Of a text, whichever way round: as magnitudes of one sign."""
    found = set[tuple[float, ...]]()
    for three in _DIFFERENCE.findall(text):
        mean, low, high = map(float, three)
        found |= {(mean, low, high), (-mean, -high, -low)}
    return found


def test_the_page_is_what_the_reports_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == written(), "run python -m benchmarks.evidence"


def test_every_measurement_stands_in_the_report_that_it_names() -> None:
    """By the words of the report, not by the code that has read it."""
    measurements = DOCUMENT.read_text(encoding="utf-8").split("\n## ")[2]
    rows = [line.strip("|").split("|") for line in measurements.splitlines() if "| " in line]
    seen = 0
    for row in rows:
        name, *scores = (cell.strip().replace("\\", "") for cell in row)
        if name in ("report", "---"):
            continue
        report = (RUNS / name / "report.md").read_text(encoding="utf-8")
        assert differences(scores[2]) <= differences(report), row
        for said in scores[:2]:
            assert set(_SCORE.findall(said)) <= set(_SCORE.findall(report)), row
        seen += 1
    assert seen > 20


@pytest.mark.parametrize("document", [README, *RUNS_READMES], ids=lambda path: path.parent.name)
def test_no_figure_is_quoted_that_no_evidence_has(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    known = DOCUMENT.read_text(encoding="utf-8")
    if document != README:
        known += "".join(path.read_text(encoding="utf-8") for path in RUNS.rglob("report.md"))
    assert differences(text) - differences(known) == set()
    scores = {score for line in text.splitlines() for score in _SCORE.findall(line)}
    settings = set(re.findall(r"\| (0\.\d{3}) \|", text.split("| variable |")[-1]))
    assert scores - set(_SCORE.findall(known)) - settings == set()


_ABOUT = r"(?:rules?|examples?|voting|votes?|loop|steering|experience|gated|paper|effort|service)"
_EFFECT = r"(?:helps?|harms?|beats?|improves?|gains?|saves?|better|worse|as good as)"
_CLAIM = re.compile(rf"\b{_ABOUT}\b[^.;:?]*?\b{_EFFECT}\b", re.IGNORECASE)
_HEDGED = re.compile(
    r"\b(?:whether|if|where|until|when|may|might|can|could|would|not|no|none|what|how|have shown|"
    r"once|lowest|least|said to|told apart|written)\b",
    re.IGNORECASE,
)


def test_a_claim_in_readme_leads_to_its_evidence() -> None:
    """A sentence that says without reserve what the method does stands in a section that links
    docs/evidence.md."""
    unproven = []
    for section in re.split(r"^#+ ", README.read_text(encoding="utf-8"), flags=re.MULTILINE):
        prose = re.sub(r"```.*?```|^\|.*$", "", section, flags=re.DOTALL | re.MULTILINE)
        if "docs/evidence.md" in section:
            continue
        for sentence in re.split(r"(?<=[.!?:;])\s+", prose):
            if _CLAIM.search(sentence) and not _HEDGED.search(sentence):
                unproven.append(" ".join(sentence.split()))
    assert unproven == []


def test_a_claim_without_reserve_is_seen() -> None:
    assert _CLAIM.search("Verified examples help, voting helps.")
    assert _CLAIM.search("The service is better than one call")
    assert not _HEDGED.search("Rules save calls")


def claim(kind: Kind, margin: float = 0.0) -> Claim:
    return Claim("c", "It does.", kind, "a", "b", ("*",), margin)


@pytest.mark.parametrize(
    ("kind", "margin", "low", "high", "verdict"),
    [
        (Kind.GREATER, 0, 0.1, 4, Verdict.SHOWN),
        (Kind.GREATER, 0, 0, 4, Verdict.NOT_SHOWN),
        (Kind.GREATER, 0, -4, -0.1, Verdict.REFUTED),
        (Kind.HARMLESS, 5, -4.9, 1, Verdict.SHOWN),
        (Kind.HARMLESS, 5, -6, 1, Verdict.NOT_SHOWN),
        (Kind.HARMLESS, 5, -9, -5.1, Verdict.REFUTED),
        (Kind.EQUAL, 5, -4, 4, Verdict.SHOWN),
        (Kind.EQUAL, 5, -4, 5, Verdict.NOT_SHOWN),
        (Kind.EQUAL, 5, 6, 9, Verdict.REFUTED),
    ],
)
def test_a_verdict_takes_the_whole_interval(
    kind: Kind, margin: float, low: float, high: float, verdict: Verdict
) -> None:
    assert judged(claim(kind, margin), Measured((low + high) / 2, low, high, 100)) is verdict


def report(name: str, mean: float, half: float, questions: int, calls: float = 1.0) -> Report:
    scores = {
        "a": ArmScore(0.6, questions, calls, None),
        "b": ArmScore(0.5, questions, 2.0, None),
    }
    # The other way round than the claim has it.
    return Report(
        name, "m", {}, scores, {("b", "a"): Measured(-mean, -mean - half, -mean + half, questions)}
    )


def test_reports_are_put_together_by_questions() -> None:
    (found,) = findings([claim(Kind.GREATER)], [report("x", 4, 6, 300), report("y", 0, 6, 100)])
    together = found.together
    assert together is not None
    assert (together.mean, together.questions) == (3.0, 400)
    # Two means of errors e with weights 3/4 and 1/4.
    assert together.high - together.mean == pytest.approx(6 * (0.75**2 + 0.25**2) ** 0.5)
    assert found.verdict is Verdict.NOT_SHOWN
    needed = questions_needed(5.0, together.spread)
    assert needed == found.would_decide
    assert needed is not None
    assert needed > 400


def test_of_one_stream_the_longest_report_counts() -> None:
    def played(name: str, questions: int, **more: object) -> Report:
        config = {"task": {"name": "intents"}, "feedback": "label", **more}
        return dataclasses.replace(report(name, 4, 6, questions), config=config)

    one, longer = played("x", 100), played("y", 300)
    reports = [one, longer, played("z", 200), played("other order", 50, first_order=1)]
    (found,) = findings([claim(Kind.GREATER)], reports)
    assert [each.name for each, _ in found.each] == ["y", "other order"]
    other_model = dataclasses.replace(one, model="another")
    (found,) = findings([claim(Kind.GREATER)], [other_model, longer])
    assert [each.name for each, _ in found.each] == ["x", "y"]


def test_calls_are_compared_over_the_same_questions() -> None:
    fewer = claim(Kind.FEWER)
    (found,) = findings([fewer], [report("x", 0, 1, 100, 1.0), report("y", 0, 1, 300, 1.2)])
    assert found.ratio == pytest.approx((100 * 1.0 + 300 * 1.2) / (400 * 2.0))
    assert found.verdict is Verdict.SHOWN
    assert Finding(fewer).verdict is Verdict.NOT_MEASURED


def test_a_spread_by_the_interval_is_that_of_the_report() -> None:
    """Its table of power has it from the questions themselves."""
    told = read_report(RUNS / "gpu" / "banking77-label" / "report.md")
    measured = told.between("knn@4", "zero-shot")
    assert measured is not None
    assert questions_needed(5.0, measured.spread) == pytest.approx(874, rel=0.06)


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "claims.toml"
    file.write_text("[[claims]]\nname = 'x'\nkind = 'faster'\nreports = []")
    with pytest.raises(ConfigurationError, match="faster"):
        read_claims(file)
    bad = tmp_path / "x" / "report.md"
    bad.parent.mkdir()
    bad.write_text("# x with y\n\n## Results\n\n| arm |\n| --- |\n| a |\n")
    with pytest.raises(ConfigurationError, match="no report that can be read"):
        read_report(bad, tmp_path)
