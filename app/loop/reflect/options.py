"""Finds the lettered options of a question, and the letter that an answer means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LETTERS = "ABCDEFGHIJ"
_MARK = re.compile(r"(?:^|(?<=[\s,;]))(?:\(([A-J])\)|\[([A-J])\]|([A-J])[).:])\s*", re.MULTILINE)
_LEADING = re.compile(r"\A[*_\s]*+(?:(?:option|choice|answer)\s++)?[(\[*]*+([A-J])(?![\w'])", re.I)
# A letter by itself, in brackets or bare.
_ONE = r"[*]{0,2}[(\[]?([A-J])[)\]]?[*]{0,2}(?![\w'])"


def _any(words: str) -> str:
    """An alternation of these, which are separated by semicolons."""
    return "(?:" + "|".join(word.strip() for word in words.split(";")) + ")"


_AND = _any(r"[,/&+]; and; or; und; oder; et; ou; y; e; o; i; en; of; 和; 或")
_SEVERAL = re.compile(
    rf"\A[*_\s]*+(?:{_any('either; both; option; options; entweder; ou; soit')}\s++)?{_ONE}"
    rf"\s{{0,3}}{_AND}\s{{0,3}}(?:(?:and|or|option)\s)?{_ONE}(?=\W*+(?:\Z|(?:and|or|,)))",
    re.IGNORECASE,
)
_IS = _any(
    "is; was; are; seems; looks; ist; est; es; è; é; can be; fails; cannot; can't; isn't; wasn't; "
    "does not; doesn't; would be"
)
_WRONG = _any(
    r"not\b; wrong; incorrect; false; out\b; too\b; excluded; eliminated; ruled; impossible; "
    r"fails; cannot; can't; isn't; wasn't; falsch; nicht; faux; fausse; pas\b; incorrect[ao]?; "
    r"falso; falsa; no\b; sbagliat; errad; errat; non\b"
)
_DENIED = re.compile(
    rf"\s{{0,3}}{_IS}?\s{{0,3}}(?:clearly|obviously|also|definitely|eindeutig)?\s{{0,3}}{_WRONG}",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\s{0,2}\?|[\s.,\u2026-]{0,6}(?:no[\s,]{1,2})?(?:wait|scratch that)\b", re.IGNORECASE
)
"""Behind a letter that is then left for another one."""
_NOT = _any(
    r"\bnot; n't(?: be)?; \bnever; rules? out; exclud\w{1,3}; eliminat\w{1,3}; rather than; "
    r"instead of; \bnicht; \bpas; \bno es; \bnon è; \bunlike"
)
_DENIAL = re.compile(rf"{_NOT}\s{{1,3}}(?:option |choice |answer )?[*(\[]*\Z", re.IGNORECASE)
_SO = _any(
    "so; therefore; thus; hence; then; but; leaves; leaving; remains; choose; pick; go with; "
    "must be; it is; it's; i think; i guess; i believe; probably; perhaps; maybe; likely; "
    "definitely; also; daher; bleibt; sondern; ich denke; wohl; donc; mais; reste; je pense; "
    "entonces; luego; sino; creo que; quindi; allora; ma; penso; logo; portanto; acho que"
)
_IT_IS = _any(
    "it is; it's; it must be; the answer is; i (?:choose|pick|say); only; is; with; option; "
    "choice; es ist; c'est; es; è; é; nur; ist"
)
_CONCLUDED = re.compile(
    rf"(?:\b{_SO}|所以|因此)[\s,:]{{0,4}}(?:{_IT_IS}[\s:]{{1,3}}){{0,2}}{_ONE}", re.IGNORECASE
)
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
        if _SEVERAL.match(bare) is not None:
            return None
        match = _LEADING.match(bare)
        if match is None or _left(bare, match.end()):
            return self.concluded_in(bare)
        if _is_article(bare, match):
            return None
        letter = match[1].upper()
        return letter if letter in self.texts else None

    def concluded_in(self, text: str) -> str | None:
        """The letter that a text comes to after it has denied others ('A is wrong, so B'); None
        where it names several, or none."""
        letters = [
            match[1]
            for match in _CONCLUDED.finditer(text)
            if match[1].isupper()
            and not _is_article(text, match)
            and not _left(text, match.end())
            and not _SEVERAL.match(text, match.start(1))
        ]
        return letters[-1] if letters and letters[-1] in self.texts else None

    def chosen_in(self, text: str) -> str | None:
        """The letter that a text without a marked answer settles on."""
        if not self.texts:
            return None
        first = text.lstrip("*_ \n").partition("\n")[0]
        if re.match(r"[(\[]?[A-J](?:[)\].:*]|\s*$)", first):
            return self.letter_of(first)
        last = text.rstrip().rpartition("\n")[2]
        for pattern, where in ((_NAMED, text), (_ALONE, last)):
            named = [match[1] for match in pattern.finditer(where) if not _is_denied(where, match)]
            if named:
                return named[-1] if named[-1] in self.texts else None
        return self.concluded_in(last)


def _is_article(text: str, match: re.Match[str]) -> bool:
    """ "A triangle" begins with a word that happens to be a letter."""
    return match[1] == "A" and re.match(r"(?<!\s)\s+[a-z]", text[match.end() :]) is not None


def _left(text: str, end: int) -> bool:
    """Whether a letter that ends here is denied by what follows, or taken back."""
    return any(pattern.match(text, end) for pattern in (_DENIED, _TAKEN_BACK))


def _is_denied(text: str, match: re.Match[str]) -> bool:
    """Whether a text says that the option it names is not the one."""
    before = text[max(0, match.start() - 30) : match.start()]
    return _left(text, match.end()) or _DENIAL.search(before) is not None


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
