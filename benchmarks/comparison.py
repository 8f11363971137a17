"""Several runs side by side: their arms, and the same arm between runs of the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from app.exceptions import ConfigurationError
from benchmarks.report.results import Pass, RunResults, read_run
from benchmarks.statistics import Comparison, Interval, compare, interval


@dataclass(frozen=True, slots=True)
class Line:
    run: str
    task: str
    model: str
    arm: str
    questions: int
    score: Interval


@dataclass(frozen=True, slots=True)
class Between:
    """The second run minus the first, in one arm."""

    arm: str
    first: str
    second: str
    comparison: Comparison
    questions: int


@dataclass(frozen=True, slots=True)
class RunComparison:
    lines: list[Line]
    between: list[Between]
    not_comparable: list[str]
    """Why two runs are not compared."""


def compare_runs(folders: Sequence[Path]) -> RunComparison:
    """Raises `ConfigurationError` for fewer than two runs, or a folder without one."""
    if len(folders) < 2:
        raise ConfigurationError("compare needs at least two run folders")
    runs = [read_run(folder) for folder in folders]
    lines = [
        Line(
            str(run.folder),
            run.config["task"]["name"],
            run.config["model"],
            arm,
            len(run.scores(arm)),
            interval(run.scores(arm), graded=run.graded),
        )
        for run in runs
        for arm in run.arms
    ]
    between: list[Between] = []
    reasons: list[str] = []
    for first, second in combinations(runs, 2):
        if first.config["data"]["sha256"] != second.config["data"]["sha256"]:
            reasons.append(f"{first.folder} and {second.folder} have different questions")
            continue
        between += [_between(first, second, arm) for arm in first.arms if arm in second.arms]
    return RunComparison(lines, between, reasons)


def _between(first: RunResults, second: RunResults, arm: str) -> Between:
    """Paired by question and pass."""
    merged = RunResults(
        second.folder,
        second.config,
        {"second": second.arms[arm], "first": first.arms[arm]},
        {},
    )
    passes: list[Pass] = [k for k in second.arms[arm].passes if k in first.arms[arm].passes]
    if not passes:
        raise ConfigurationError(
            f"{first.folder} and {second.folder} have no pass of {arm} in common"
        )
    mine, theirs = merged.paired("second", "first")
    return Between(
        arm,
        str(first.folder),
        str(second.folder),
        compare(mine, theirs, graded=first.graded),
        len(mine),
    )
