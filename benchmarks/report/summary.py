"""What a report says, computed once: accuracy, differences, costs, power, warnings, verdict."""

from __future__ import annotations

import statistics as plain
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.results import Result, RunResults, outcomes
from benchmarks.statistics import (
    Comparison,
    Interval,
    StreamPoint,
    along_stream,
    compare,
    halves,
    interval,
    last_third,
    questions_needed,
)

POWER_DIFFERENCES = (0.02, 0.05, 0.10)
FEW_QUESTIONS = 100
WITH_EXPERIENCE = ("rules", "examples", "experience")
"""Arms of the product's own experience with feedback."""
BARS = ("zero-shot", "empty-bank", "neighbour", "sc", "self-icl", "knn")
"""Kinds of arms that others are measured against, the plainest first."""
PARTS = ("random-rules", "rules", "rules-at-once", "examples")
"""Arms with experience that other ones are measured against as well, in the same order."""
_BASELINES = (*BARS, *PARTS)


@dataclass(frozen=True, slots=True)
class ArmSummary:
    name: str
    questions: int
    repeats: int
    complete: bool
    accuracy: Interval
    calls: float
    """Mean per question, as are the next three."""
    prompt_tokens: float
    completion_tokens: float
    model_seconds: float
    """Sum over a question's calls of the time that each took."""
    seconds: float | None
    """Median time of a question none of whose calls came from disk; None when there is none."""
    timed: int
    failures: int
    halves: tuple[float, float]
    last_third: Interval
    stream: list[StreamPoint]
    rules: dict[str, float]
    """Mean per pass of rules created, merged and quarantined."""
    problems: dict[str, int]
    saw_rules: float
    """Share of the questions, as is the next."""
    saw_examples: float


@dataclass(frozen=True, slots=True)
class Difference:
    arm: str
    baseline: str
    comparison: Comparison
    questions: int
    needed: dict[float, int | None]
    """Difference in accuracy -> questions that would show it."""


@dataclass(frozen=True, slots=True)
class Summary:
    arms: list[ArmSummary]
    differences: list[Difference]
    verdict: str
    warnings: list[str]


def summarise(run: RunResults) -> Summary:
    arms = [_arm(run, name) for name in run.arms if run.arms[name].passes]
    differences = [
        _difference(run, arm.name, baseline)
        for baseline in _measured_against(run, _BASELINES)
        for arm in arms
        if _compared(arm.name, baseline)
    ]
    return Summary(arms, differences, _verdict(run, differences), _warnings(run, arms))


def _measured_against(run: RunResults, kinds: tuple[str, ...]) -> list[str]:
    """The strictest first: of one kind the largest K first."""
    return sorted((name for name in run.arms if _kind(name) in kinds), key=_plainness, reverse=True)


def _compared(arm: str, baseline: str) -> bool:
    """Each pair once, the plainer arm as the baseline."""
    return _plainness(arm) > _plainness(baseline)


def _kind(arm: str) -> str:
    """`sc` of `sc@5`."""
    return arm.partition("@")[0]


def _plainness(arm: str) -> tuple[int, int]:
    """Smaller for a plainer arm: first by its kind, then by its K."""
    kind, _, count = arm.partition("@")
    if kind not in _BASELINES:
        return (len(_BASELINES), 0)
    return (_BASELINES.index(kind), int(count or 0))


def _arm(run: RunResults, name: str) -> ArmSummary:
    results = run.arms[name]
    passes = results.used(run.total)
    rows = run.rows(name)
    scores = run.scores(name)
    by_position = run.by_position(name)
    timed = [row.seconds for row in rows if row.seconds is not None]
    counts = Counter[str]()
    for key in passes:
        counts.update(outcomes(results.rules.get(key, [])))
    return ArmSummary(
        name=name,
        questions=len(scores),
        repeats=len(passes),
        complete=len(results.passes[passes[0]]) == run.total
        and len(passes) == run.config["seeds"] * run.config["orders"],
        accuracy=interval(scores, graded=run.graded),
        calls=_mean([row.calls for row in rows]),
        prompt_tokens=_mean([row.prompt_tokens for row in rows]),
        completion_tokens=_mean([row.completion_tokens for row in rows]),
        model_seconds=_mean([row.model_seconds for row in rows]),
        seconds=plain.median(timed) if timed else None,
        timed=len(timed),
        failures=sum(row.failure is not None for row in rows),
        halves=halves(by_position),
        last_third=interval(last_third(by_position), graded=run.graded),
        stream=along_stream(by_position, window=max(5, len(by_position) // 8)),
        rules={outcome: count / len(passes) for outcome, count in sorted(counts.items())},
        problems=dict(Counter(problem for row in rows for problem in row.problems)),
        saw_rules=_mean([bool(row.rules) for row in rows]),
        saw_examples=_mean([row.examples > 0 for row in rows]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _difference(run: RunResults, arm: str, baseline: str) -> Difference:
    mine, theirs = run.paired(arm, baseline)
    comparison = compare(mine, theirs, graded=run.graded)
    needed = {d: questions_needed(d, comparison.spread) for d in POWER_DIFFERENCES}
    return Difference(arm, baseline, comparison, len(mine), needed)


def _verdict(run: RunResults, differences: list[Difference]) -> str:
    """One sentence on each arm with learned rules or examples against the strictest bar there is;
    where there is no such arm, on those that recall examples against one plain call."""
    bars = _measured_against(run, BARS)
    learning = ("paper", "gated", *WITH_EXPERIENCE)
    judged = [d for d in differences if d.arm in learning and d.baseline == bars[0]]
    judged = judged or [
        d for d in differences if _kind(d.arm) in ("knn", "self-icl") and d.baseline == "zero-shot"
    ]
    if not judged:
        return "No arm that learns was compared with a baseline."
    return " ".join(_sentence(d) for d in judged)


def _sentence(difference: Difference) -> str:
    change = difference.comparison.difference
    if change.low > 0:
        finding = f"{difference.arm} does better than {difference.baseline}"
    elif change.high < 0:
        finding = f"Negative: {difference.arm} does worse than {difference.baseline}"
    else:
        finding = f"Undecided: {difference.arm} is not shown to differ from {difference.baseline}"
    return (
        f"{finding} ({100 * change.mean:+.1f} points, 95% interval {100 * change.low:+.1f} to "
        f"{100 * change.high:+.1f}, {difference.questions} questions)."
    )


def _warnings(run: RunResults, arms: list[ArmSummary]) -> list[str]:
    found = []
    missing = [name for name in run.config["arms"] if name not in {arm.name for arm in arms}]
    if missing:
        found.append(f"Not yet run: {', '.join(missing)}.")
    for arm in arms:
        if not arm.complete:
            found.append(
                f"{arm.name} is not finished: {arm.questions} of {run.total} questions in "
                f"{arm.repeats} of {run.config['seeds'] * run.config['orders']} passes."
            )
        if arm.failures:
            found.append(f"{arm.name} gave no answer {arm.failures} times; these count as wrong.")
    found += _compute_mismatch(arms)
    if run.total < FEW_QUESTIONS:
        found.append(f"{run.total} questions can show large differences only; see the power line.")
    left_out = run.config["data"]["left_out"]
    if left_out:
        found.append(
            f"{len(left_out)} questions are left out, as their gold answers can't be read."
        )
    return found


def _compute_mismatch(arms: list[ArmSummary]) -> list[str]:
    """Arms that spend more than the self-consistency they are measured against."""
    bars = [arm for arm in arms if arm.name.startswith("sc@")]
    if not bars and all(arm.calls <= 1 for arm in arms):
        return []
    if not bars:
        return ["There is no self-consistency arm: nothing shows what the same calls give alone."]
    bar = max(bars, key=lambda arm: arm.calls)
    return [
        f"Not compute-matched: {arm.name} makes {arm.calls:.1f} calls and "
        f"{arm.prompt_tokens + arm.completion_tokens:.0f} tokens a question, {bar.name} "
        f"{bar.calls:.1f} and {bar.prompt_tokens + bar.completion_tokens:.0f}."
        for arm in arms
        if arm.calls > bar.calls * 1.05
    ]


@dataclass(frozen=True, slots=True)
class Change:
    """A question where an arm with a rule and the arm without any came out differently."""

    id: str
    gold: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class RuleUse:
    text: str
    uses: int
    better: list[Change]
    worse: list[Change]


def rule_uses(run: RunResults, arm: str, *, most: int = 10) -> tuple[str | None, list[RuleUse]]:
    """The most used rules, with the questions they were given to that went from wrong to right or
    back, against the arm without rules (its name comes first; None when there is none)."""
    reference = next((n for n in ("empty-bank", "zero-shot") if n in run.arms), None)
    uses: dict[str, list[tuple[Result, Result | None]]] = {}
    for key in run.arms[arm].used(run.total):
        without = run.arms[reference].passes.get(key, {}) if reference else {}
        for row in run.arms[arm].passes[key].values():
            for text in row.rules:
                uses.setdefault(text, []).append((row, without.get(row.id)))
    ranked = sorted(uses.items(), key=lambda item: (-len(item[1]), item[0]))[:most]
    return reference, [_use(text, rows) for text, rows in ranked]


def _use(text: str, rows: list[tuple[Result, Result | None]]) -> RuleUse:
    def changes(sign: int) -> list[Change]:
        return [
            Change(with_.id, with_.gold, without.answer, with_.answer)
            for with_, without in rows
            if without is not None and sign * (with_.score - without.score) > 0
        ]

    return RuleUse(text, len(rows), changes(1), changes(-1))
