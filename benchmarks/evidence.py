"""Which claims of README and docs the checked-in reports bear out, and what would decide the rest.

    python -m benchmarks.evidence            # writes docs/evidence.md
    python -m benchmarks.evidence --check    # says whether it is what the reports say; exit code 1

Claims are in `claims.toml`: two arms and what is said of them. Every figure is read from the tables
of the reports (`docs/runs/**/report.md`), so that whoever checks in a report runs this again.

Where several reports have the two arms, their differences are put together by questions: the mean
over all, and the interval of a sum of independent means (normal approximation). The reports of one
task in two orders share their questions, so for these it is too narrow.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from app.exceptions import ConfigurationError
from benchmarks.report.document import Block, Bullets, Code, Heading, Paragraph, Table, to_markdown
from benchmarks.statistics import NORMAL_QUANTILE, questions_needed

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "runs"
DOCUMENT = ROOT / "docs" / "evidence.md"
CLAIMS = Path(__file__).with_name("claims.toml")
SOUGHT = 5.0
"""Points of a difference that is worth deciding on."""


class Verdict(StrEnum):
    SHOWN = "shown"
    NOT_SHOWN = "not shown"
    REFUTED = "refuted"
    NOT_MEASURED = "not measured"


class Kind(StrEnum):
    """What a claim says of its arm beside the baseline."""

    GREATER = "greater"
    HARMLESS = "harmless"
    EQUAL = "equal"
    FEWER = "fewer"


@dataclass(frozen=True, slots=True)
class Claim:
    name: str
    claim: str
    kind: Kind
    arm: str
    baseline: str
    reports: tuple[str, ...]
    margin: float = 0.0
    """Points; of `harmless` and `equal`."""
    feedback: str | None = None
    """Only reports of runs with this much."""
    open: bool = False
    """Of open tasks; their measure is no share of right answers, so they stand apart."""


@dataclass(frozen=True, slots=True)
class Unreported:
    """Figures that are quoted and of which no report is checked in."""

    about: str
    figures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A difference in points with its 95 % interval, over so many questions."""

    mean: float
    low: float
    high: float
    questions: int

    @property
    def error(self) -> float:
        return (self.high - self.low) / 2 / NORMAL_QUANTILE

    @property
    def spread(self) -> float:
        """Standard deviation of a question's difference, in points, as the interval has it."""
        return self.error * math.sqrt(self.questions)

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


@dataclass(frozen=True, slots=True)
class ArmScore:
    score: float
    questions: int
    calls: float
    """Mean of a question, learning included."""
    last_third: float | None
    """Score in the last third of the stream; older reports have none."""


@dataclass(frozen=True, slots=True)
class Report:
    name: str
    """Folder under docs/runs."""
    model: str
    config: dict[str, Any]
    """Of the run; empty where the report was checked in without it."""
    scores: dict[str, ArmScore]
    differences: dict[tuple[str, str], Measured]

    @property
    def feedback(self) -> str:
        return str(self.config.get("feedback", "none"))

    @property
    def open(self) -> bool:
        return bool(self.config.get("task", {}).get("kind") == "open")

    @property
    def stream(self) -> tuple[Any, ...]:
        """Two reports of one stream measure the same: one has the other's questions, or more."""
        if not self.config:
            return (self.name,)
        told = (self.feedback, self.config.get("label_noise", 0.0))
        order = self.config.get("first_order", 0)
        return (self.model, self.config["task"]["name"], *told, order)

    @property
    def command(self) -> str:
        """That makes such a run: the arms that it has, on its data."""
        config = self.config
        if not config:
            return "docs/runs/README.md has it"
        parts = ["ttcl bench run", f"--task {config['task']['name']}"]
        if config["task"]["source"] is None or config["data"]["source"].endswith("l"):
            parts.append(f"--data {config['data']['source']}")
        given = {
            "--limit": config.get("limit"),
            "--feedback": self.feedback if self.feedback != "none" else None,
            "--label-noise": config.get("label_noise") or None,
            "--first-order": config.get("first_order") or None,
            "--max-tokens": config["task"]["max_tokens"],
            "--concurrency": config["concurrency"],
        }
        parts += [f"{name} {value}" for name, value in given.items() if value is not None]
        return " ".join([*parts, f"--arms {','.join(self.scores)}"])

    def between(self, arm: str, baseline: str) -> Measured | None:
        """Arm minus baseline, whichever way round the report has it."""
        found = self.differences.get((arm, baseline))
        if found is not None:
            return found
        other = self.differences.get((baseline, arm))
        if other is None:
            return None
        return Measured(-other.mean, -other.high, -other.low, other.questions)


@dataclass(frozen=True, slots=True)
class Finding:
    """What the reports say of a claim."""

    claim: Claim
    each: list[tuple[Report, Measured]] = field(default_factory=list)
    calls: list[tuple[Report, float]] = field(default_factory=list)
    """Of `fewer`: the arm's calls by the baseline's."""

    @property
    def together(self) -> Measured | None:
        if not self.each:
            return None
        questions = sum(found.questions for _, found in self.each)
        mean = sum(found.questions * found.mean for _, found in self.each) / questions
        squares = sum((found.questions * found.error) ** 2 for _, found in self.each)
        half = NORMAL_QUANTILE * math.sqrt(squares) / questions
        if len(self.each) == 1:
            return self.each[0][1]
        return Measured(mean, mean - half, mean + half, questions)

    @property
    def ratio(self) -> float | None:
        """Of all calls, over the reports."""
        if not self.calls:
            return None
        arm, baseline = self.claim.arm, self.claim.baseline
        scores = [report.scores for report, _ in self.calls]
        made = sum(each[arm].questions * each[arm].calls for each in scores)
        return made / sum(each[baseline].questions * each[baseline].calls for each in scores)

    @property
    def verdict(self) -> Verdict:
        if self.claim.kind is Kind.FEWER:
            return Verdict.NOT_MEASURED if self.ratio is None else _verdict_on_calls(self.ratio)
        found = self.together
        return Verdict.NOT_MEASURED if found is None else judged(self.claim, found)

    @property
    def would_decide(self) -> int | None:
        """Questions; at a true difference of `SOUGHT` points or the margin."""
        found = self.together
        if found is None or self.verdict is not Verdict.NOT_SHOWN:
            return None
        return questions_needed(self.claim.margin or SOUGHT, found.spread)


def judged(claim: Claim, found: Measured) -> Verdict:
    """By the whole interval."""
    margin = claim.margin
    if claim.kind is Kind.GREATER:
        shown, refuted = found.low > 0, found.high < 0
    elif claim.kind is Kind.HARMLESS:
        shown, refuted = found.low > -margin, found.high < -margin
    else:
        shown = -margin < found.low and found.high < margin
        refuted = found.high < -margin or found.low > margin
    return Verdict.SHOWN if shown else Verdict.REFUTED if refuted else Verdict.NOT_SHOWN


# --- reading


def read_claims(path: Path = CLAIMS) -> tuple[list[Claim], list[Unreported]]:
    """Raises `ConfigurationError`."""
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
        claims = [
            Claim(**{**row, "kind": Kind(row["kind"]), "reports": tuple(row["reports"])})
            for row in held["claims"]
        ]
        quoted = [
            Unreported(row["about"], tuple(row["figures"])) for row in held.get("unreported", ())
        ]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return claims, quoted


def read_reports(folder: Path = RUNS) -> list[Report]:
    """Those that are checked in, by their folders."""
    return [read_report(path, folder) for path in sorted(folder.rglob("report.md"))]


_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_MEASURED = re.compile(r"([+-]\d+\.\d) \(([+-]\d+\.\d) to ([+-]\d+\.\d)\)")


def read_report(path: Path, folder: Path = RUNS) -> Report:
    """A report as `benchmarks.report` has written it. Raises `ConfigurationError`."""
    parts = _HEADING.split(path.read_text(encoding="utf-8"))
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    try:
        config = json.loads(sections.get("Configuration", "{}").strip().strip("`"))
        calls = {row["arm"]: float(row["calls"]) for row in _table(sections["Cost"])}
        thirds = {row["arm"]: row.get("last third") for row in _table(sections["Along the stream"])}
        scores = {
            row["arm"]: ArmScore(
                float(row["score"]),
                int(row["questions"]),
                calls[row["arm"]],
                None if (third := thirds[row["arm"]]) is None else float(third),
            )
            for row in _table(sections["Results"])
        }
        differences = {}
        for row in _table(sections.get("Differences", "")):
            arm, _, baseline = row["arm minus baseline"].partition(" - ")
            found = _MEASURED.fullmatch(row["points (95% interval)"])
            if found is None:
                raise ValueError(f"{arm} - {baseline} is no difference")
            mean, low, high = map(float, found.groups())
            differences[arm, baseline] = Measured(mean, low, high, int(row["questions"]))
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"{path} is no report that can be read: {error}") from error
    model = parts[0].splitlines()[0].partition(" with ")[2].replace("\\", "")
    return Report(path.parent.relative_to(folder).as_posix(), model, config, scores, differences)


def _table(section: str) -> list[dict[str, str]]:
    """The section's first table, a row by the names of its columns."""
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    if lines is None:
        return []
    head, _, *rows = [
        [cell.strip().replace("\\", "") for cell in line.strip("|").split("|")]
        for line in lines[0].splitlines()
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


def findings(claims: Sequence[Claim], reports: Sequence[Report]) -> list[Finding]:
    found = []
    for claim in claims:
        fitting = [
            report
            for report in reports
            if any(fnmatch.fnmatchcase(report.name, pattern) for pattern in claim.reports)
            and claim.feedback in (None, report.feedback)
            and claim.open == report.open
        ]
        finding = Finding(claim)
        both = [report for report in fitting if {claim.arm, claim.baseline} <= report.scores.keys()]
        longest: dict[tuple[Any, ...], Report] = {}
        for report in both:
            other = longest.setdefault(report.stream, report)
            if report.scores[claim.arm].questions > other.scores[claim.arm].questions:
                longest[report.stream] = report
        for report in (report for report in both if longest[report.stream] is report):
            arm, baseline = report.scores[claim.arm], report.scores[claim.baseline]
            if claim.kind is Kind.FEWER:
                # Means over other questions can't be compared.
                if arm.questions == baseline.questions:
                    finding.calls.append((report, arm.calls / baseline.calls))
            elif (measured := report.between(claim.arm, claim.baseline)) is not None:
                finding.each.append((report, measured))
        found.append(finding)
    return found


# --- writing

_HEAD = """# Evidence

What README and docs say about the effect of the method, held against the reports that are checked
in. `python -m benchmarks.evidence` writes this page from them and from `benchmarks/claims.toml`;
whoever checks in a report runs it again, and a test compares. The reports are in
[runs](runs/README.md).

Differences are in points over the same questions (ROUGE-Lsum in hundredths), with 95 % intervals.
*Shown*: the whole interval is on the claim's side of zero, or of the margin where the claim is that
there is no harm or no difference. *Refuted*: all of it is on the other side. *Not shown*: it holds
both. Where several reports have the two arms they are put together by questions and taken for
independent; of several reports of one stream and model the longest counts. Two orders of one task,
and what is told of it, share their questions, so there the interval is too narrow. The mean of
several streams hides that they differ: "of the reports" says on how many the claim is shown, and on
how many it is refuted.

*Would decide*: questions at which a paired test finds a true difference of 5 points, or of the
margin, with 80 % power at the 5 % level, given the spread that was seen; where nothing is measured,
given the median of the spreads in all reports.

"""


def document(found: Sequence[Finding], quoted: Sequence[Unreported]) -> str:
    """The page."""
    used = {report.name: report for each in found for report, _ in (*each.each, *each.calls)}
    commands = [f"{name}: {report.command}" for name, report in used.items()]
    blocks: list[Block] = [
        Heading("Claims"),
        _claims(found),
        Heading("Measurements"),
        *_measurements(found),
        Heading("Commands"),
        Code("\n".join(commands), "text"),
    ]
    if quoted:
        blocks += [
            Heading("Quoted without a report"),
            Paragraph("Measured once, by hand; read them as hints, not as evidence."),
            Bullets([f"{each.about}: {', '.join(each.figures)}" for each in quoted]),
        ]
    return _HEAD + to_markdown(blocks)


def _claims(found: Sequence[Finding]) -> Table:
    usual = median(
        needed
        for each in found
        for _, measured in each.each
        if (needed := questions_needed(SOUGHT, measured.spread)) is not None
    )
    rows = []
    for each in found:
        decide = each.would_decide
        if each.verdict is Verdict.NOT_MEASURED:
            decide = round(usual)
        rows.append(
            [
                each.claim.claim,
                each.verdict.value,
                _shown(each),
                str(_questions(each) or ""),
                _of_the_reports(each),
                _compared(each.claim),
                ", ".join(sorted({r.model for r, _ in (*each.each, *each.calls)})),
                "" if decide is None else f"{decide:,}",
            ]
        )
    head = ["claim", "verdict", "points (95% interval)", "questions", "of the reports"]
    return Table([*head, "arms", "model", "would decide"], rows)


def _of_the_reports(finding: Finding) -> str:
    verdicts = [judged(finding.claim, measured) for _, measured in finding.each]
    verdicts += [_verdict_on_calls(ratio) for _, ratio in finding.calls]
    if not verdicts:
        return ""
    refuted = verdicts.count(Verdict.REFUTED)
    said = f"{verdicts.count(Verdict.SHOWN)} of {len(verdicts)}"
    return f"{said}, refuted on {refuted}" if refuted else said


def _verdict_on_calls(ratio: float) -> Verdict:
    return Verdict.SHOWN if ratio < 1 else Verdict.REFUTED


def _compared(claim: Claim) -> str:
    said = f"{claim.arm} - {claim.baseline}"
    if claim.kind is Kind.FEWER:
        return f"{claim.arm} / {claim.baseline}"
    return f"{said}, within {claim.margin:g}" if claim.margin else said


def _shown(finding: Finding) -> str:
    if finding.ratio is not None:
        return f"{100 * finding.ratio:.0f}% of the calls"
    return "" if finding.together is None else str(finding.together)


def _questions(finding: Finding) -> int:
    arm = finding.claim.arm
    counted = sum(report.scores[arm].questions for report, _ in finding.calls)
    return counted if finding.together is None else finding.together.questions


def _measurements(found: Sequence[Finding]) -> Iterator[Block]:
    """Under each claim what every report says."""
    for each in found:
        claim = each.claim
        rows = [
            [*_row(claim, report), str(measured), str(measured.questions), judged(claim, measured)]
            for report, measured in each.each
        ]
        for report, ratio in each.calls:
            calls = f"{100 * ratio:.0f}% of the calls"
            questions = str(report.scores[claim.arm].questions)
            rows.append([*_row(claim, report), calls, questions, _verdict_on_calls(ratio)])
        if rows:
            head = ["report", claim.arm, claim.baseline, "points (95% interval)", "questions"]
            yield Heading(claim.claim, 3)
            yield Table([*head, "verdict"], rows)


def _row(claim: Claim, report: Report) -> list[str]:
    def said(arm: str) -> str:
        own = report.scores[arm]
        third = "" if own.last_third is None else f", last third {own.last_third:.3f}"
        return f"{own.score:.3f} of {own.questions}, {own.calls:.1f} calls{third}"

    return [report.name, said(claim.arm), said(claim.baseline)]


def written() -> str:
    """What the page should be. Raises `ConfigurationError`."""
    claims, quoted = read_claims()
    return document(findings(claims, read_reports()), quoted)


def main(
    check: Annotated[bool, typer.Option("--check", help="Only compare, and write nothing")] = False,
) -> None:
    """Write docs/evidence.md from the reports that are checked in."""
    text = written()
    if not check:
        DOCUMENT.write_text(text, encoding="utf-8")
    elif not DOCUMENT.is_file() or DOCUMENT.read_text(encoding="utf-8") != text:
        typer.echo("docs/evidence.md is not what the reports say: python -m benchmarks.evidence")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
