"""Mathematical answers: equal as mathematics, or wrong.

Equality is `app.loop.reflect.equivalence` (exact numbers; math-verify in a worker process). This
module adds what a grader must be strict about and a grouping of samples need not be: brackets mean
something, a named unknown must be the one asked for, and per cent may be written as a fraction.

Not covered: answers of more than 400 characters, and equality that sympy can't show in time
(both count as wrong).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.loop.reflect.answers import extract
from app.loop.reflect.equivalence import ComparisonUnfinished, Equivalence
from app.loop.reflect.normalise import Formula, Number, Words, read
from benchmarks.grading.base import Grade, UnreadableGold
from benchmarks.grading.text import plain

_REWRITES = (
    (re.compile(r"\\(?:varnothing|O)\b|∅"), r"\\emptyset"),
    (re.compile(r"\bnp\.(?=[a-z])"), r"\\"),
    (re.compile(r"\\\\\s+"), r"\\\\"),  # the row break of a matrix is no spacing command
    (re.compile(r"\\(?:left|right|displaystyle)(?![a-z])"), ""),
    (re.compile(r"\\[()\[\]]|(?<!\\)\$\$?"), ""),
)
_NAMED = re.compile(r"\A\s*([A-Za-z])\s*=(?!=)")
_KNOWN_WORDS = re.compile(
    r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|exp|sqrt|pi|and|or", re.IGNORECASE
)
_COMMAND = re.compile(
    r"\\(?:begin|end)\{\w+\}|\\(?:text\w*|math\w+|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|_\{[^{}]*\}|_\w+"
)
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")


def tidy(answer: str) -> str:
    """LaTeX forms that the equality does not know, rewritten to ones that it does."""
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    return answer.strip()


@dataclass(frozen=True, slots=True)
class _Math:
    gold: str
    question: str
    equivalence: Equivalence

    async def grade(self, text: str) -> Grade:
        found = extract(text, self.question)
        if found is None:
            return Grade(0.0, None)
        return Grade(float(await self._equal(tidy(found.text))), found.text)

    async def _equal(self, answer: str) -> bool:
        mine, theirs = shape(self.gold), shape(answer)
        if (mine and theirs and mine != theirs) or _other_unknown(self.gold, answer):
            return False
        try:
            if await self.equivalence.equivalent(self.gold, answer, question=self.question):
                return True
        except ComparisonUnfinished:
            return False
        return _equal_per_cent(self.gold, answer)


class MathGrader:
    name = "math"
    graded = False

    def __init__(self, equivalence: Equivalence) -> None:
        self._equivalence = equivalence

    async def read(self, gold: str, question: str) -> _Math:
        tidied = tidy(gold)
        reading = read(tidied)
        if isinstance(reading, Words):
            if not plain(tidied) or len(reading.text) > 100 or _unbalanced(tidied):
                raise UnreadableGold(f"'{gold}' is neither mathematics nor a short text")
        elif isinstance(reading, Formula):
            await self._check(gold, reading.text)
        return _Math(tidied, question, self._equivalence)

    async def _check(self, gold: str, formula: str) -> None:
        stray = [
            word
            for word in _LONG_WORD.findall(_COMMAND.sub(" ", formula))
            if not _KNOWN_WORDS.fullmatch(word)
        ]
        if _unbalanced(formula) or stray:
            raise UnreadableGold(f"'{gold}' looks damaged")
        if not await self._equivalence.readable(formula):
            raise UnreadableGold(f"'{gold}' can't be parsed")


def shape(answer: str) -> str:
    """How an answer of several values is written: `()` for a tuple or an open interval, `[)` and
    so on for other intervals, `{}` for values in any order, with or without braces. Empty for
    everything else: one value, an inequality, a union."""
    body = re.sub(r"\A[^=<>,]*=(?![=<>])", "", answer).strip().rstrip(".")
    body = body.replace("\\{", "{").replace("\\}", "}").replace("{,}", "")
    if isinstance(read(answer), Number) or "cup" in body or "\u222a" in body or "\\begin" in body:
        return ""
    depths = [depth for depth, character in _depths(body) if character == ","]
    if not depths:
        return ""
    if 0 in depths:
        return "{}"
    enclosed = all(depth > 0 for depth, _ in list(_depths(body))[:-1])
    ends = body[0] + body[-1]
    return ends if enclosed and ends in ("()", "[]", "[)", "(]", "{}") else ""


def _depths(body: str) -> Iterator[tuple[int, str]]:
    """Each character with the number of brackets open after it."""
    depth = 0
    for character in body:
        depth += (character in "([{") - (character in ")]}")
        yield depth, character


def _other_unknown(gold: str, answer: str) -> bool:
    mine, theirs = _NAMED.match(gold), _NAMED.match(answer)
    return bool(mine and theirs and mine[1] != theirs[1] and gold.count("=") == 1)


def _equal_per_cent(gold: str, answer: str) -> bool:
    """50% is 1/2 as well as 'fifty, in per cent'."""
    left, right = read(gold), read(answer)
    if not (isinstance(left, Number) and isinstance(right, Number)):
        return False
    if (left.unit == "%") == (right.unit == "%"):
        return False
    return _fraction(left) == _fraction(right)


def _fraction(number: Number) -> object:
    return number.value / 100 if number.unit == "%" else number.value


def _unbalanced(text: str) -> bool:
    """Braces must pair; round and square brackets may close each other, as intervals do."""
    braces = brackets = 0
    for character in text.replace("\\{", "(").replace("\\}", ")"):
        braces += (character == "{") - (character == "}")
        brackets += (character in "([") - (character in ")]")
        if braces < 0 or brackets < 0:
            return True
    return bool(braces or brackets)
