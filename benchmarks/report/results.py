"""The rows of a run, by arm, repeat and question, without the texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from benchmarks.journal import read_rows
from benchmarks.rundir import load_config, load_results
from benchmarks.statistics import Scores

Pass = tuple[int, int]
"""seed, order"""


@dataclass(frozen=True, slots=True)
class Result:
    id: str
    position: int
    score: float
    answer: str | None
    gold: str
    failure: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    model_seconds: float
    seconds: float | None
    problems: tuple[str, ...]
    rules: tuple[str, ...]
    """Texts of the rules that were injected."""
    examples: int
    """Earlier questions that were shown, or whose answer was copied."""
    given: str | None
    """What an arm decided to put into the prompt, where it decides: a `Given`."""
    told: str | None
    """The wrong label that feedback gave, where it did."""


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule as it was learned."""

    position: int
    polarity: str
    text: str
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """What happened to an example."""

    question: str
    """Id of the question that it came of."""
    outcome: str


@dataclass(slots=True)
class ArmResults:
    name: str
    passes: dict[Pass, dict[str, Result]] = field(default_factory=dict)
    rules: dict[Pass, list[RuleRow]] = field(default_factory=dict)
    examples: dict[Pass, list[ExampleRow]] = field(default_factory=dict)

    def used(self, total: int) -> list[Pass]:
        """The complete passes; where there is none, the fullest."""
        complete = sorted(key for key, rows in self.passes.items() if len(rows) == total)
        if complete:
            return complete
        return [max(sorted(self.passes), key=lambda key: len(self.passes[key]))]


@dataclass(frozen=True, slots=True)
class RunResults:
    folder: Path
    config: dict[str, Any]
    arms: dict[str, ArmResults]
    prompts: dict[str, str]
    """Question id -> the user message."""

    @property
    def total(self) -> int:
        """Questions that can be graded."""
        data = self.config["data"]
        return int(data["questions"]) - len(data["left_out"])

    @property
    def feedback(self) -> str:
        return str(self.config.get("feedback", "none"))

    @property
    def graded(self) -> bool:
        return self.config["task"]["grader"] in ("rouge", "bertscore")

    def scores(self, arm: str) -> Scores:
        """Shape (questions, repeats)."""
        return self.paired(arm, arm)[0]

    def paired(self, arm: str, other: str) -> tuple[Scores, Scores]:
        """Scores of two arms on the passes and questions that both have; (questions, repeats)."""
        mine, theirs = self.arms[arm], self.arms[other]
        passes = [key for key in mine.used(self.total) if key in theirs.passes]
        ids = [
            id_
            for id_ in self._ids(mine, passes)
            if all(id_ in theirs.passes[key] for key in passes)
        ]
        return _matrix(mine, passes, ids), _matrix(theirs, passes, ids)

    def _ids(self, arm: ArmResults, passes: Sequence[Pass]) -> list[str]:
        if not passes:
            return []
        shared = set.intersection(*(set(arm.passes[key]) for key in passes))
        return sorted(shared)

    def by_position(self, arm: str) -> Scores:
        """Shape (positions, repeats), in the order of the stream."""
        results = self.arms[arm]
        columns = [
            [r.score for r in sorted(results.passes[key].values(), key=lambda r: r.position)]
            for key in results.used(self.total)
        ]
        shortest = min(len(column) for column in columns)
        return np.array([column[:shortest] for column in columns], dtype=np.float64).T

    def rows(self, arm: str) -> list[Result]:
        """Of every pass that counts."""
        results = self.arms[arm]
        return [row for key in results.used(self.total) for row in results.passes[key].values()]


def _matrix(arm: ArmResults, passes: Sequence[Pass], ids: Sequence[str]) -> Scores:
    rows = [[arm.passes[key][id_].score for key in passes] for id_ in ids]
    return np.array(rows, dtype=np.float64).reshape(len(ids), len(passes))


def read_run(folder: Path) -> RunResults:
    """Raises `ConfigurationError` when the folder holds no run."""
    config = load_config(folder)
    arms: dict[str, ArmResults] = {}
    for row in load_results(folder):
        arm = arms.setdefault(row["arm"], ArmResults(row["arm"]))
        arm.passes.setdefault((row["seed"], row["order"]), {})[row["id"]] = _result(row)
    for _, row in read_rows(folder / "rules.jsonl"):
        arm = arms.setdefault(row["arm"], ArmResults(row["arm"]))
        key = row["seed"], row["order"]
        arm.rules.setdefault(key, []).extend(_rules(row))
        examples = [ExampleRow(e["question"], e["outcome"]) for e in row.get("examples", ())]
        arm.examples.setdefault(key, []).extend(examples)
        rows = arm.passes.get(key, {})
        if "learning" in row and row["id"] in rows:
            rows[row["id"]] = _with_learning(rows[row["id"]], row["learning"])
    names = [name for name in config["arms"] if name in arms]
    prompts = {row["id"]: row["prompt"] for _, row in read_rows(folder / "questions.jsonl")}
    return RunResults(folder, config, {name: arms[name] for name in names}, prompts)


def _result(row: dict[str, Any]) -> Result:
    return Result(
        id=row["id"],
        position=row["position"],
        score=row["score"],
        answer=row["answer"],
        gold=row["gold"],
        failure=row["failure"],
        calls=row["calls"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        model_seconds=row["model_seconds"],
        seconds=row["seconds"],
        problems=tuple(intern(problem) for problem in row.get("problems", ())),
        rules=tuple(intern(rule["text"]) for rule in row.get("rules_injected", ())),
        examples=len(row.get("examples", ())),
        given=row.get("given"),
        told=row.get("told"),
    )


def _with_learning(result: Result, spent: dict[str, Any]) -> Result:
    """What was spent on learning when the question's step was over belongs to its cost."""
    return replace(
        result,
        calls=result.calls + spent["calls"],
        prompt_tokens=result.prompt_tokens + spent["prompt_tokens"],
        completion_tokens=result.completion_tokens + spent["completion_tokens"],
        model_seconds=result.model_seconds + spent["model_seconds"],
    )


def _rules(row: dict[str, Any]) -> list[RuleRow]:
    return [
        RuleRow(row["position"], rule["polarity"], rule["text"], rule["outcome"], rule["reason"])
        for rule in row["rules"]
    ]


def outcomes(rules: Sequence[RuleRow]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for rule in rules:
        counts[rule.outcome] += 1
    return dict(counts)
