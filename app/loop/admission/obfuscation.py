"""Sees through disguises: look-alike letters, hidden characters, spelled-out and encoded text.

`readings` gives what a text says to a reader, for the screens that look for words; `encoded` names
a disguise that no honest rule has.
"""

# ruff: noqa: RUF001 - look-alikes are what it is about

from __future__ import annotations

import base64
import binascii
import codecs
import re
import string
import unicodedata
from collections.abc import Callable, Iterator

from app.loop.admission.characters import (
    latin_look,
    mixes_scripts,
    plain_latin,
    visible,
)
from app.loop.admission.pattern_files import load

_ESCAPES = load("encoded")["encoded"].each
# Latin letter: those of other alphabets that look like it.
_LOOK_ALIKES = {
    ord(other): letter
    for letter, others in {
        "a": "аαɑ", "b": "ьβ", "c": "сϲ", "d": "ԁ", "e": "еεҽ", "g": "ɡ", "h": "һ", "i": "іιıɩ",
        "j": "ј", "k": "кκ", "m": "м", "n": "пη", "o": "оοσ", "p": "рρ", "q": "ԛ", "r": "г",
        "s": "ѕ", "t": "тτ", "u": "υ", "v": "ѵν", "w": "ԝω", "x": "хχ", "y": "уγ", "z": "ᴢ",
        "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "J": "Ј", "K": "КΚ",
        "M": "МΜ", "N": "Ν", "O": "ОΟ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "УΥ",
        "Z": "Ζ",
    }.items()
    for other in others
}  # fmt: skip
_QUOTES = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2032\u2010\u2011\u2012\u2013\u2014", "''\"\"'-----"
)
_LEET = str.maketrans("013457@$!|", "oieastasil")
_MIXED_SCRIPTS = re.compile(r"[A-Za-z][\u0370-\u052f]|[\u0370-\u052f][A-Za-z]")
_SPACED_OUT = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z][ ._*|/-]){4,}[A-Za-z](?![A-Za-z0-9])")
_INNER_MARK = re.compile(r"(?<=[a-z])[._*|~^](?=[a-z])", re.IGNORECASE)
_LEET_WORD = re.compile(r"(?<![\w@$])(?=\w*[a-z])[a-z]*[013457@$][\w@$!|]*[a-z][\w@$!|]*", re.I)


def plain(text: str) -> str:
    """NFKC, without invisible characters, look-alikes in their Latin form, single spaces, lower
    case. Texts in other scripts keep their letters."""
    text = visible(unicodedata.normalize("NFKC", visible(text)).translate(_QUOTES))
    if sum(c.isascii() and c.isalpha() for c in text) or _MIXED_SCRIPTS.search(text):
        text = " ".join(_latin(word) for word in text.split())
    return " ".join(text.casefold().split())


def _latin(word: str) -> str:
    """A word with Latin look-alikes for all of its foreign letters is a Latin word."""
    translated = word.translate(_LOOK_ALIKES)
    if not translated.isascii() and mixes_scripts(word):
        translated = "".join(map(latin_look, translated))
    return translated if translated.isascii() else word


def readings(text: str) -> tuple[str, ...]:
    """What the text may be read as, plainest first; each one once."""
    first = plain(text)
    joined = _INNER_MARK.sub("", _SPACED_OUT.sub(lambda m: re.sub(r"\W|_", "", m[0]), first))
    leet = _LEET_WORD.sub(lambda m: m[0].translate(_LEET), joined)
    return tuple(dict.fromkeys((first, joined, leet, plain_latin(first))))


def encoded(text: str) -> str | None:
    """Names the first disguise that is found, with where; None for open text."""
    for name, found in _DISGUISES:
        if (what := found(text)) is not None:
            return f"{name}: '{what[:40]}'"
    return None


def _letter_forms(text: str) -> str | None:
    """Letters out of alphabets of their own (mathematical bold, circled, full width, phonetic)."""
    folded = [
        c for c in text if not c.isascii() and (n := unicodedata.normalize("NFKC", c)).isascii()
        and n.isalpha()
    ]  # fmt: skip
    phonetic = [c for c in text if "\u0250" <= c <= "\u02af" or "\u1d00" <= c <= "\u1dbf"]
    odd = phonetic or (folded if len(folded) >= 3 else [])
    return "".join(odd) or None


def _marks(text: str) -> str | None:
    """Variation selectors, and more marks on Latin letters than any language sets."""
    selectors = [c for c in text if "\ufe00" <= c <= "\ufe0f"]
    marks = re.findall(r"[A-Za-z][\u0300-\u036f]{2,}", text)
    return f"U+{ord(selectors[0]):04X}" if selectors else (marks[0] if marks else None)


def _look_alikes(text: str) -> str | None:
    for word in re.findall(r"\w+", text):
        # One Greek letter beside Latin ones is a symbol (Δx, μm); within a word it is none.
        if len(word) >= 4 and (_MIXED_SCRIPTS.search(word) or mixes_scripts(word)):
            return str(word)
    return None


def _spelled_out(text: str) -> str | None:
    match = _SPACED_OUT.search(text)
    return match[0] if match else None


def _leetspeak(text: str) -> str | None:
    words = [w for w in _LEET_WORD.findall(text.casefold()) if len(w) >= 4 and w.islower()]
    # 'i18n', 'k8s' and 'b2b' are names; two words with letters replaced are a habit.
    habits = [w for w in words if re.search(r"[a-z][013457@$]+[a-z]", w)]
    return habits[0] if len(habits) >= 2 else None


def _escapes(text: str) -> str | None:
    found = (pattern.search(text) for pattern in _ESCAPES)
    return next((match[0].strip() for match in found if match), None)


def _packed(text: str) -> str | None:
    """A token that is base64, base32 or hexadecimal of readable text."""
    decoders: tuple[tuple[str, Callable[[str], bytes]], ...] = (
        (r"(?:[0-9a-fA-F]{2}[ :,-]?){6,}", lambda t: bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", t))),
        (r"[A-Z2-7]{16,}", lambda t: base64.b32decode(t + "=" * (-len(t) % 8))),
        (r"[A-Za-z0-9+/_-]{12,}", lambda t: base64.b64decode(_padded(t))),
    )
    for pattern, decode in decoders:
        for token in re.findall(pattern, text):
            try:
                content = decode(token.rstrip()).decode()
            except (ValueError, binascii.Error):
                continue
            if content and all(c in string.printable for c in content):
                return str(token)
    return None


def _padded(token: str) -> str:
    token = token.replace("-", "+").replace("_", "/")
    return token[: len(token) - 1] if len(token) % 4 == 1 else token + "=" * (-len(token) % 4)


_ENGLISH_WORDS = """
the and of to in is it that with for on as are this be not all any your you user users answer
answers always never when every reply question questions ignore rule rules say tell choose
instructions previous system prompt password password safety do from or before after request
requests check reveal option
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())


def _english(text: str) -> int:
    return sum(word in _ENGLISH for word in re.findall(r"[a-z]+", text.casefold()))


def _ciphers(text: str) -> Iterator[str]:
    lower = text.casefold()
    letters = string.ascii_lowercase
    yield lower[::-1]
    yield " ".join(word[::-1] for word in lower.split())
    yield lower.translate(str.maketrans(letters, letters[::-1]))
    yield codecs.encode(lower, "rot13")
    for shift in range(1, 26):
        yield lower.translate(str.maketrans(letters, letters[shift:] + letters[:shift]))


def _ciphered(text: str) -> str | None:
    """Letters turned around or shifted: more English comes out than went in."""
    before = _english(text)
    for reading in _ciphers(text):
        if _english(reading) >= max(3, 3 * before):
            return reading
    return None


_DISGUISES: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    ("letter forms", _letter_forms),
    ("marks", _marks),
    ("look-alikes", _look_alikes),
    ("spelled out", _spelled_out),
    ("escapes", _escapes),
    ("packed", _packed),
    ("leetspeak", _leetspeak),
    ("cipher", _ciphered),
)
