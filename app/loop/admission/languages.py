"""Which language a text is in, and what a hostile rule says in languages other than English.

Scripts tell most; among languages in Latin letters the classifier py3langid does. Of 22 short
questions and rules in nine of them it knows all, and function words knew 13; neither takes any of
the 206 good rules of the corpus for another language than English. A language that the screens have
no words for is told apart, so that a person reads its rules first.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from app.loop.admission.pattern_files import PatternCheck, read
from app.loop.admission.text_measures import script

ENGLISH = "en"
SURE = 2
"""Function words of English from which nothing else is asked."""

_LANGUAGES = read("languages")
_WORDS = {
    name: frozenset(language["words"].split())
    for name, language in _LANGUAGES.items()
    if "words" in language
}
ORDERS = {
    name: PatternCheck(patterns=(language["orders"],), ignore_case=True)
    for name, language in _LANGUAGES.items()
    if "orders" in language
}
"""What a hostile rule says, by language."""
_SCRIPTS = {
    "CJK": "zh/ja", "CYRILLIC": "ru", "ARABIC": "ar", "HANGUL": "ko", "DEVANAGARI": "hi",
}  # fmt: skip


def tongue(text: str) -> str | None:
    """Language of a text: a code, or the name of a script; None when there is too little to tell.

    English where its function words are two at least and the most: short sentences with a name in
    them pass for other languages with the classifier.
    """
    letters = script(text)
    if letters is None:
        return None
    if letters != "LATIN":
        return _SCRIPTS.get(letters, letters.lower())
    scores = _scores(text)
    if scores[ENGLISH] >= SURE and scores[ENGLISH] == max(scores.values()):
        return ENGLISH
    return str(_classifier().classify(text)[0])


@cache
def _classifier() -> Any:
    """Of the languages that are told apart; it takes a second to load."""
    from py3langid import langid

    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    found.set_languages(list(_WORDS))
    return found


def _scores(text: str) -> dict[str, int]:
    """Function words of each language in a text of Latin letters."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return {name: sum(word in known for word in words) for name, known in _WORDS.items()}


def possible(text: str) -> list[str]:
    """Languages that the text may be in: its own; where nothing tells, each of Latin letters; and
    beside English those that have as many of their function words in it."""
    own = tongue(text)
    if own not in (None, ENGLISH):
        return [own]
    if script(text) not in (None, "LATIN"):
        return []
    scores = _scores(text)
    return [name for name in scores if scores[name] >= scores[ENGLISH]]


def unscreened(text: str) -> str | None:
    """A language that there are no screens for, by name."""
    name = tongue(text)
    return name if name not in (None, ENGLISH) and name not in ORDERS else None


def hostile(text: str) -> str | None:
    """A word of orders, secrets, refusals or safety in the text's own language, or in any that so
    few words may be of. Wider than the screens for English: a false alarm is read by a person."""
    found = (ORDERS[name](text) for name in possible(text) if name in ORDERS)
    return next((word for word in found if word is not None), None)
