"""Words and option letters: equal after normalisation, or wrong."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from app.loop.reflect.answers import extract
from benchmarks.grading.base import Grade, UnreadableGold

_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}"
)
_LETTER = re.compile(r"\(?([A-Z])\)?")


def plain(text: str) -> str:
    """Without LaTeX text commands, case, quotes, doubled spaces and punctuation at the ends."""
    text = _TEXT_COMMAND.sub(r"\1", unicodedata.normalize("NFKC", text))
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*_$\u201c\u201d\u2018\u2019")


def _folded(letter: str) -> str:
    """A letter as an option has it: fullwidth, in LaTeX or small."""
    return unicodedata.normalize("NFKC", _TEXT_COMMAND.sub(r"\1", letter)).strip().upper()


@dataclass(frozen=True, slots=True)
class _Text:
    gold: str
    question: str

    async def grade(self, text: str) -> Grade:
        found = extract(text, self.question)
        if found is None:
            return Grade(0.0, None)
        return Grade(float(plain(found.text) == self.gold), found.text)


class ExactGrader:
    name = "exact"
    graded = False

    async def read(self, gold: str, question: str) -> _Text:
        if not plain(gold):
            raise UnreadableGold("it is empty")
        return _Text(plain(gold), question)


class ChoiceGrader:
    """The gold answer is a letter; the options are listed in the question."""

    name = "choice"
    graded = False

    async def read(self, gold: str, question: str) -> _Choice:
        letter = _LETTER.fullmatch(_folded(gold))
        if letter is None:
            raise UnreadableGold(f"'{gold}' is not one letter from A to Z")
        return _Choice(letter[1], question)


@dataclass(frozen=True, slots=True)
class _Choice:
    gold: str
    question: str

    async def grade(self, text: str) -> Grade:
        found = extract(text, self.question)
        if found is None:
            return Grade(0.0, None)
        letter = _LETTER.fullmatch(_folded(found.text))
        return Grade(float(letter is not None and letter[1] == self.gold), found.text)
