"""Counts, numbers, names and shared runs of words in a text; for the admission check."""

from __future__ import annotations

import re
import unicodedata

_TOKEN = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_STOP_WORDS = """
a about after all also an and any are as at be because been before being but by can could did do
does doing each every for from had has have he her his how i if in into is it its many may more
most much must new no not of off on one only or other out over own per same she should so some such
than that the their them then there these they this those through to too two under up use used
using was we were what when where which while who whose why will with without would you your
"""
_STOP = frozenset(_STOP_WORDS.split())


def words(text: str) -> float:
    """Number of words; a letter of a script that is written without spaces counts one half."""
    unspaced = len(_UNSPACED.findall(text))
    return len(_UNSPACED.sub(" ", text).split()) + unspaced / 2


def content_words(text: str) -> set[str]:
    """Words of four letters or more that are not mere grammar, without plural and verb endings."""
    tokens = (token.casefold() for token in _TOKEN.findall(text))
    return {_stem(token) for token in tokens if len(token) >= 4 and token not in _STOP}


def _stem(token: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if token.endswith(ending) and len(token) - len(ending) >= 3:
            return token.removesuffix(ending)
    return token


def numbers(text: str) -> set[str]:
    """Numbers written in digits, without thousands separators and trailing zeros."""
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)
    return {_plain(number.replace(",", "")) for number in found}


def _plain(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number


_TEENS, _TENS, _UNITS = (
    row.split()
    for row in (
        "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
        "twenty thirty forty fifty sixty seventy eighty ninety",
        "one two three four five six seven eight nine",
    )
)


def spelled(number: str) -> str | None:
    """English words for 11 to 99, without a hyphen; None for any other number or text."""
    if not re.fullmatch(r"[1-9]\d", number) or number == "10":
        return None
    value = int(number)
    if value < 20:
        return _TEENS[value - 11]
    tens, unit = divmod(value, 10)
    return _TENS[tens - 2] + (f" {_UNITS[unit - 1]}" if unit else "")


_CAPITAL = re.compile(r"(?<=[\w,;:)] )[A-Z][a-z]{2,}(?:'s)?(?=(\s+\w+)?)")
_SHARED_CONCEPT_WORDS = """
theorem formula rule law method equation identity inequality triangle series distribution
coordinates numbers monday tuesday wednesday thursday friday saturday sunday
"""
_SHARED_CONCEPT = frozenset(_SHARED_CONCEPT_WORDS.split())


def capitals(text: str) -> set[str]:
    """Capitalised words inside sentences, as names are; 'Pythagorean theorem' is none."""
    found = set()
    for match in _CAPITAL.finditer(text):
        follower = (match[1] or "").strip().casefold()
        name = match[0].removesuffix("'s")
        if follower not in _SHARED_CONCEPT and name.casefold() not in _SHARED_CONCEPT:
            found.add(name)
    return found


def script(text: str) -> str | None:
    """The script most letters of `text` are in ('LATIN', 'CYRILLIC', 'CJK', ...); None when there
    are fewer than ten letters to tell by, or four of a script without spaces."""
    counts: dict[str, int] = {}
    for character in text:
        if character.isalpha():
            name = unicodedata.name(character, "UNKNOWN").partition(" ")[0]
            # Japanese mixes three scripts, and Chinese uses one of them.
            name = "CJK" if name in {"HIRAGANA", "KATAKANA"} else name
            counts[name] = counts.get(name, 0) + 1
    if sum(counts.values()) < (4 if _UNSPACED.search(text) else 10):
        return None
    return max(counts, key=lambda name: counts[name])


def longest_shared(text: str, source: str, at_least: int) -> str | None:
    """The longest run of words of `text` of which every `at_least` in a row are in `source` too;
    None when there is none. Linear in both, however often a word comes again."""
    mine, theirs = _tokens(text), _tokens(source)
    known = {tuple(theirs[at : at + at_least]) for at in range(len(theirs) - at_least + 1)}
    best: list[str] = []
    begin: int | None = None
    for start in range(len(mine) - at_least + 1):
        if tuple(mine[start : start + at_least]) not in known:
            begin = None
            continue
        begin = start if begin is None else begin
        if start + at_least - begin > len(best):
            best = mine[begin : start + at_least]
    return " ".join(best) or None


def _tokens(text: str) -> list[str]:
    return [token.casefold() for token in _TOKEN.findall(text)]
