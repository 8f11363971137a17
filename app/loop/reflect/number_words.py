"""Numbers in words ('three', 'einundzwanzig', 'minus four', 'two dozen'), as digits.

Whole answers only, and no word that is more often something else ('one of them', 'second'). The
package text2num reads the words of seven languages; ideographs have their value in Unicode.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from text_to_num import text2num

_LANGUAGES = ("en", "fr", "es", "pt", "de", "it", "nl")
_LONGEST = 100
_MINUS = re.compile(r"\A(?:minus|negative|moins|menos|meno|negativ[oe]?)\s+", re.IGNORECASE)
_DOZENS = re.compile(
    r"\A(?:(?P<count>[a-z]{2,9}|\d{1,6})\s+)?(?P<kind>dozen|dozens|score)\Z", re.IGNORECASE
)
_EACH = {"dozen": 12, "dozens": 12, "score": 20}
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'-]+[^\W\d_]+)*")
_LAST_WORD = re.compile(r"\A(?P<number>.*[^\W\d_])\s+(?P<noun>[^\W\d_]{2,20})\Z")
_NO_NOUNS = frozenset({"of", "or", "and", "more", "less", "fewer", "other", "another", "by", "to"})


def in_digits(answer: str) -> str | None:
    """'3' of 'three', '-21' of 'minus twenty-one', '3 eggs' of 'three eggs'; None where the answer
    is not a number in words with at most one noun behind it."""
    text = " ".join(answer.split()).strip(". ")
    if not text or len(text) > _LONGEST or not _WORDS.fullmatch(text):
        return None
    return _read(text.casefold())


@lru_cache(maxsize=4096)
def _read(text: str) -> str | None:
    minus = _MINUS.match(text)
    bare = text[minus.end() :] if minus else text
    sign = "-" if minus else ""
    value = _value(bare)
    if value is not None:
        return f"{sign}{value}"
    split = _LAST_WORD.match(bare)
    if split is None or split["noun"] in _NO_NOUNS:
        return None
    value = _value(split["number"], ("en",))
    return None if value is None else f"{sign}{value} {split['noun']}"


def _value(text: str, languages: tuple[str, ...] = _LANGUAGES) -> int | None:
    if len(text) == 1:
        number = unicodedata.numeric(text, None)
        return int(number) if number is not None and number == int(number) else None
    if (dozens := _DOZENS.match(text)) is not None:
        count = dozens["count"]
        many = 1 if count in (None, "a", "one") else _value(count, ("en",))
        return None if many is None else many * _EACH[dozens["kind"]]
    plain = text.removeprefix("a ") if text.startswith(("a hundred", "a thousand")) else text
    for language in languages:
        try:
            return int(text2num(plain, language))
        except ValueError:
            continue
    return None
