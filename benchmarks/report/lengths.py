"""Whether an arm's answers to open questions are closer to the reference, or only longer.

ROUGE-Lsum moves with length alone. So every answer is also cut to the number of words of the
shortest that any arm gave to the question, and scored again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.loop.reflect.answers import strip_reasoning
from benchmarks.grading.overlap import RougeGrader
from benchmarks.report.document import Block, Heading, Paragraph, Table
from benchmarks.report.results import RunResults
from benchmarks.rundir import load_results
from benchmarks.statistics import Comparison, Interval, Scores, compare, interval, mean_interval

BAR = "zero-shot"
"""What the others are compared with."""
_WORD = re.compile(r"\S+")

Key = tuple[int, int, str]
"""seed, order, question id"""


@dataclass(frozen=True, slots=True)
class ArmLength:
    arm: str
    words: Interval
    """Of an answer."""
    score: Interval
    """As it is, over the questions that all arms have answered; as the next."""
    matched: Interval
    """At the length of the shortest."""
    beside: Comparison | None
    """Minus `BAR`, at that length; None for that one, and where it did not run."""


def first_words(text: str, most: int) -> str:
    """The text up to the end of its word number `most`."""
    for number, word in enumerate(_WORD.finditer(text), 1):
        if number == most:
            return text[: word.end()]
    return text


def lengths(run: RunResults) -> list[ArmLength]:
    """Of each arm, over the questions that all have answered; none where there are none."""
    answers, golds = _answers(run)
    shared = set.intersection(*(set(texts) for texts in answers.values())) if answers else set()
    if not shared:
        return []
    scorer = RougeGrader()
    words = {arm: _matrix({k: _count(texts[k]) for k in shared}) for arm, texts in answers.items()}
    plain = {
        arm: _matrix({k: scorer.measure(golds[k], texts[k]) for k in shared})
        for arm, texts in answers.items()
    }
    shortest = {
        key: min((_count(texts[key]) for texts in answers.values() if texts[key]), default=0)
        for key in shared
    }
    matched = {
        arm: _matrix(
            {k: scorer.measure(golds[k], first_words(texts[k], shortest[k])) for k in shared}
        )
        for arm, texts in answers.items()
    }
    bar = matched.get(BAR)
    return [
        ArmLength(
            arm,
            mean_interval(words[arm].mean(axis=1)),
            interval(plain[arm], graded=True),
            interval(scores, graded=True),
            None if bar is None or arm == BAR else compare(scores, bar, graded=True),
        )
        for arm, scores in matched.items()
    ]


def _answers(run: RunResults) -> tuple[dict[str, dict[Key, str]], dict[Key, str]]:
    """By arm what it said, without thoughts, and the references."""
    answers: dict[str, dict[Key, str]] = {arm: {} for arm in run.arms if run.arms[arm].passes}
    golds: dict[Key, str] = {}
    for row in load_results(run.folder):
        key = (row["seed"], row["order"], row["id"])
        if row["arm"] in answers:
            answers[row["arm"]][key] = strip_reasoning(row["text"])
            golds[key] = row["gold"]
    return answers, golds


def _count(text: str) -> int:
    return len(_WORD.findall(text))


def _matrix(values: Mapping[Key, float]) -> Scores:
    """Shape (questions, repeats); of the questions that every repeat has."""
    passes = sorted({key[:2] for key in values})
    ids = sorted({key[2] for key in values})
    whole = [id for id in ids if all((*each, id) in values for each in passes)]
    return np.array([[values[(*each, id)] for each in passes] for id in whole], dtype=np.float64)


def blocks(run: RunResults) -> list[Block]:
    """Of tasks that are measured by ROUGE-Lsum."""
    if run.config["task"]["grader"] != RougeGrader.name:
        return []
    found = lengths(run)
    if not found:
        return []
    head = ["arm", "words", "95% interval", "score", "score at matched length", "95% interval"]
    rows = [
        [
            each.arm,
            f"{each.words.mean:.0f}",
            f"{each.words.low:.0f} to {each.words.high:.0f}",
            f"{each.score.mean:.3f}",
            f"{each.matched.mean:.3f}",
            f"{each.matched.low:.3f} to {each.matched.high:.3f}",
            _points(each.beside),
        ]
        for each in found
    ]
    note = (
        "Over the questions that all arms have answered. At matched length every answer is cut to "
        "the number of words of the shortest that any arm gave to the question: what is left of a "
        "difference there is not length alone."
    )
    return [Heading("Length"), Table([*head, f"minus {BAR}, matched"], rows), Paragraph(note)]


def _points(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    change = comparison.difference
    return f"{100 * change.mean:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
