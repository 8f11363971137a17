"""Characters that are not what they look like: hidden ones, and letters of other scripts that pass
for Latin ones.

Hidden are those that Unicode calls default-ignorable (DerivedCoreProperties.txt, a text looks the
same without them) and letters that are drawn as blanks. Look-alikes are those of UTS 39
(confusables.txt, in the package confusable-homoglyphs); of its prototypes only the Latin ones
matter here, since the screens look for Latin words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Default_Ignorable_Code_Point of Unicode 16, and the blank of Braille.
_HIDDEN_CLASS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_HIDDEN = re.compile(f"[{_HIDDEN_CLASS}]")
_BLANKS = str.maketrans(dict.fromkeys("\u115f\u1160\u2800\u3164\uffa0", " "))
_OTHERWISE_UNSEEN = ("Cf", "Co", "Cs", "Cn")
_JOINERS = "\u200c\u200d"
"""Persian and the Indic scripts need them within words."""
_WITHOUT_LATIN_LOOKS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "DEVANAGARI")
"""Beside which Latin words stand without a space."""


def hidden(text: str) -> str | None:
    """The first character that nobody sees; joiners between letters of a script that needs them are
    none."""
    for place, character in enumerate(text):
        unseen = unicodedata.category(character) in _OTHERWISE_UNSEEN
        if not unseen and not _HIDDEN.match(character):
            continue
        before = text[place - 1 : place]
        if character in _JOINERS and _needs_joiners(before):
            continue
        return f"U+{ord(character):04X}"
    return None


def _needs_joiners(before: str) -> bool:
    """Whether this is a letter, or a sign on one, of a script that has joiners."""
    letter = before != "" and unicodedata.category(before)[0] in "LM"
    return letter and script_of(before) not in ("LATIN", "COMBINING", "HANGUL", "VARIATION")


def visible(text: str) -> str:
    """Without what nobody sees; letters that are drawn as blanks are blanks."""
    shown = _HIDDEN.sub("", text.translate(_BLANKS))
    return "".join(c for c in shown if unicodedata.category(c) not in _OTHERWISE_UNSEEN)


def without_marks(text: str) -> str:
    """Letters without their accents: 'ignore' of 'ïgnörê'."""
    parts = unicodedata.normalize("NFD", text)
    return unicodedata.normalize(
        "NFC", "".join(c for c in parts if unicodedata.category(c) != "Mn")
    )


def script_of(letter: str) -> str:
    """The first word of its name in Unicode: LATIN, GREEK, CHEROKEE."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


_STRUCK = re.compile(r"LATIN (?:SMALL|CAPITAL) LETTER (?:DOTLESS )?([A-Z])(?: WITH .*)?")


@cache
def latin_look(letter: str) -> str:
    """The ASCII letter that a letter of any script passes for; itself where there is none."""
    if letter.isascii():
        return letter
    plain = without_marks(unicodedata.normalize("NFKC", letter))
    if plain.isascii() and plain:
        return plain
    if struck := _STRUCK.fullmatch(unicodedata.name(letter, "")):
        return struck[1].lower()
    looks = [found for found in _confusables(letter) if found.isascii() and found.isalnum()]
    if not looks:
        further = [each for found in _confusables(letter) for each in _confusables(found)]
        looks = [found for found in further if found.isascii() and found.isalnum()]
    if not looks:
        return letter
    # UTS 39 has one prototype, l, for the upright strokes; in a word an I is meant by an I.
    name = unicodedata.name(letter, "")
    return "i" if looks[0] == "l" and re.search(r"\bI\b|IOTA|YERU", name) else looks[0]


def plain_latin(text: str) -> str:
    """Latin letters without their accents and strokes: 'ignore' of 'ïgnørë'."""
    return "".join(
        latin_look(c) if not c.isascii() and script_of(c) == "LATIN" else c
        for c in without_marks(text)
    )


def mixes_scripts(word: str) -> bool:
    """Whether letters of other scripts stand beside Latin ones in a word and pass for such."""
    scripts = {c: script_of(c) for c in word if c.isalpha()}
    if "LATIN" not in scripts.values() or len(set(scripts.values())) < 2:
        return False
    return any(
        script != "LATIN" and script not in _WITHOUT_LATIN_LOOKS and latin_look(letter).isascii()
        for letter, script in scripts.items()
    )


def _confusables(letter: str) -> list[str]:
    return [each["c"] for each in _table().get(letter, ()) if len(each["c"]) == 1]


@cache
def _table() -> dict[str, list[dict[str, str]]]:
    # Here: it reads a megabyte, which takes a fifth of a second.
    from confusable_homoglyphs import confusables

    table: dict[str, list[dict[str, str]]] = confusables.confusables_data
    return table
