"""What became of wrong rules: how often they steered, when they left, how many stayed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.poison import CORRUPTED, wrong_rules
from benchmarks.report.document import Block, Heading, Paragraph, Table
from benchmarks.report.results import ArmResults, Pass, RunResults

SUFFIX = "+poison"
_GONE = ("demoted", "refuted", "superseded")


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Of one arm, over its passes. Exposures are counted per rule."""

    arm: str
    accuracy: float
    injected: float
    """Wrong rules injected per question."""
    injected_late: float
    """The same in the last quarter of the stream."""
    most_exposures: int
    """Of one wrong rule."""
    left: int
    """Wrong rules that evidence took out of use, of all that were there."""
    total: int
    exposures_to_leave: float | None
    """Median over those that left."""


def poisoned(run: RunResults) -> list[Poisoned]:
    return [_measured(run, arm) for name, arm in run.arms.items() if name.endswith(SUFFIX)]


def blocks(run: RunResults) -> list[Block]:
    found = poisoned(run)
    if not found:
        return []
    rows = [
        [
            each.arm,
            f"{each.accuracy:.3f}",
            f"{each.injected:.2f}",
            f"{each.injected_late:.2f}",
            str(each.most_exposures),
            f"{each.left} of {each.total}",
            "-" if each.exposures_to_leave is None else f"{each.exposures_to_leave:.0f}",
        ]
        for each in found
    ]
    head = [
        "arm",
        "score",
        "wrong rules a question",
        "in the last quarter",
        "most exposures of one",
        "out of use",
        "exposures until then",
    ]
    return [
        Heading("Poison"),
        Table(head, rows),
        Paragraph(
            f"{len(wrong_rules())} wrong rules are imported as active before the first question, "
            "and of everything that is distilled 5% is stored with its polarity turned round."
        ),
    ]


def _measured(run: RunResults, arm: ArmResults) -> Poisoned:
    passes = arm.used(run.total)
    shown: list[tuple[int, int]] = []
    counts: list[int] = []
    leaving: list[int] = []
    left = total = 0
    for key in passes:
        wrong = {rule.text for rule in wrong_rules()} | _turned(arm, key)
        gone = {
            rule.text: rule.position
            for rule in arm.rules.get(key, ())
            if rule.outcome in _GONE and rule.text in wrong
        }
        exposures = dict.fromkeys(wrong, 0)
        before = dict.fromkeys(gone, 0)
        for row in arm.passes[key].values():
            own = [text for text in row.rules if text in wrong]
            shown.append((row.position, len(own)))
            for text in own:
                exposures[text] += 1
                if text in gone and row.position <= gone[text]:
                    before[text] += 1
        counts += exposures.values()
        leaving += before.values()
        left, total = left + len(gone), total + len(wrong)
    late = [count for position, count in shown if position >= 0.75 * run.total]
    return Poisoned(
        arm=arm.name,
        accuracy=_mean(row.score for row in run.rows(arm.name)),
        injected=_mean(count for _, count in shown),
        injected_late=_mean(late),
        most_exposures=max(counts, default=0),
        left=left,
        total=total,
        exposures_to_leave=median(leaving) if leaving else None,
    )


def _turned(arm: ArmResults, key: Pass) -> set[str]:
    return {rule.text for rule in arm.rules.get(key, ()) if rule.reason == CORRUPTED}


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return fmean(known) if known else 0.0
