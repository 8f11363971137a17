"""Finds the lettered options of a question, and the letter that an answer means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LETTERS = "ABCDEFGHIJ"
_MARK = re.compile(r"(?:^|(?<=[\s,;]))(?:\(([A-J])\)|\[([A-J])\]|([A-J])[).:])\s*", re.MULTILINE)
_LEADING = re.compile(r"\A[*_\s]*+(?:(?:option|choice|answer)\s++)?[(\[*]*+([A-J])(?![\w'])", re.I)
_NAMED = re.compile(r"\b(?:option|choice|answer|letter)\s+(?:is\s+)?[*]*[(\[]?([A-J])\b")
_ALONE = re.compile(r"(?:^|\s)[*]*[(\[]([A-J])[)\]]")


@dataclass(frozen=True, slots=True)
class Options:
    """`texts`: letter to the option's wording; empty when the question lists none."""

    texts: Mapping[str, str] = field(default_factory=dict)

    def letter_of(self, answer: str) -> str | None:
        """The letter an already extracted answer stands for: by itself, first, or by wording."""
        if not self.texts:
            return None
        bare = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", answer).strip()
        for letter, text in self.texts.items():
            if text and _flat(text) == _flat(bare):
                return letter
        match = _LEADING.match(bare)
        # "A triangle" begins with a word that happens to be a letter.
        if match is None or (match[1] == "A" and re.match(r"(?<!\s)\s+[a-z]", bare[match.end() :])):
            return None
        letter = match[1].upper()
        return letter if letter in self.texts else None

    def chosen_in(self, text: str) -> str | None:
        """The letter that a text without a marked answer settles on."""
        if not self.texts:
            return None
        first = text.lstrip("*_ \n").partition("\n")[0]
        if re.match(r"[(\[]?[A-J](?:[)\].:*]|\s*$)", first):
            return self.letter_of(first)
        named = _NAMED.findall(text) or _ALONE.findall(text.rstrip().rpartition("\n")[2])
        return named[-1] if named and named[-1] in self.texts else None


def find_options(question: str) -> Options:
    """Options lettered from A without a gap, at least two; the last such list in the question."""
    marks = [(m.start(), m.end(), m[1] or m[2] or m[3]) for m in _MARK.finditer(question)]
    run: list[tuple[int, int, str]] = []
    best: list[tuple[int, int, str]] = []
    for mark in marks:
        if mark[2] == "A":
            run = [mark]
        elif run and mark[2] == _LETTERS[len(run) % len(_LETTERS)]:
            run.append(mark)
        if len(run) >= 2:
            best = list(run)
    ends = [*(start for start, _, _ in best[1:]), len(question)]
    return Options(
        {
            letter: question[after:end].strip().partition("\n\n")[0].strip(" ,;\n")
            for (_, after, letter), end in zip(best, ends, strict=False)
        }
    )


def _flat(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s%/.+\-^\\]", " ", text.casefold()).split()).rstrip(".")
