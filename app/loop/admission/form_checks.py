"""What no rule may contain, wherever it comes from: checks of the text alone.

Each check returns what it objects to, or None.
"""

from __future__ import annotations

import re
import unicodedata

from app.loop.admission.addresses import address
from app.loop.admission.characters import hidden
from app.loop.admission.pattern_files import load
from app.loop.admission.text_measures import words
from rules_store.models.rules import Polarity

PATTERNS = load("form")
"""Patterns by the name of their check; for most of these they are the whole check."""
LONGEST_RULE = 32
"""Words. Letters of scripts without spaces count as half a word each."""
SHORTEST_RULE = 4
_MOST_CHARACTERS = 600
"""No language needs more for so few words."""


def control_characters(text: str) -> str | None:
    odd = next((c for c in text if unicodedata.category(c) == "Cc"), None)
    return f"U+{ord(odd):04X}" if odd is not None else hidden(text)


def url(text: str) -> str | None:
    return PATTERNS["url"](text) or address(text)


def too_short(text: str) -> str | None:
    count = words(text)
    return f"{count:g} words" if count < SHORTEST_RULE else None


def too_long(text: str) -> str | None:
    if len(text) > _MOST_CHARACTERS:
        return f"{len(text)} characters"
    count = words(text)
    return f"{count:g} words" if count > LONGEST_RULE else None


_MODAL = re.compile(
    r"\b(?:should|must|need(?:s|ed)?|has to|have to|ought|always|never|cannot|can't|requires?"
    r"|helps?|important|essential|better|best|avoid|remember|useful)\b",
    re.IGNORECASE,
)


def statement(text: str) -> str | None:
    """A report ('The train travels ...') instead of advice."""
    match = PATTERNS["statement"].regex.match(text)
    return f"begins with '{match[0]}'" if match and not _MODAL.search(text) else None


_CUT_OFF = re.compile(r"[,;][\s'-]*\.?\Z")


def unfinished(text: str) -> str | None:
    """A sentence that was cut off."""
    return PATTERNS["unfinished"](text) or ("',.'" if _CUT_OFF.search(text) else None)


_LONGEST_WORD = 28
_REPEATED_WORD = 4
_FRESH_WORDS = 0.6
_LETTERS = 0.6


def gibberish(text: str) -> str | None:
    """Words going round in a circle, or hardly a letter among the signs."""
    tokens = [token.casefold() for token in re.findall(r"[^\W\d_]+", text)]
    if sum(character.isalpha() for character in text) < _LETTERS * len(text.replace(" ", "")):
        return "few letters"
    if not tokens:
        return "no words"
    if (longest := max(tokens, key=len)).isascii() and len(longest) > _LONGEST_WORD:
        return f"'{longest[:_LONGEST_WORD]}'"
    if len(set(tokens)) < _FRESH_WORDS * len(tokens) and len(tokens) >= 8:
        return "repeats itself"
    common = [token for token in set(tokens) if len(token) > 3 and token.isascii()]
    most = max(common, key=lambda token: (tokens.count(token), token), default="")
    if most and tokens.count(most) >= _REPEATED_WORD:
        return f"'{most}' again and again"
    pairs = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return "repeats itself" if len(pairs) - len(set(pairs)) >= 2 else None


_WARNING = re.compile(
    r"\A(?:please\s+)?(?:avoid|never|don't|do not|refrain|beware|stop|not)\b", re.IGNORECASE
)
_ENCOURAGEMENT = re.compile(
    r"\A(?:please\s+)?(?:always|make sure|ensure|remember to|be sure|use|check|verify|try to)\b",
    re.IGNORECASE,
)


def warns(text: str) -> bool:
    """Whether it begins as a warning, and so says itself that something is to be avoided."""
    return _WARNING.match(text) is not None


def wrong_polarity(text: str, polarity: Polarity) -> str | None:
    """A warning among the advice or advice among the warnings would say its opposite."""
    pattern = _WARNING if polarity is Polarity.POSITIVE else _ENCOURAGEMENT
    match = pattern.match(text)
    return f"'{match[0]}' in a {polarity.value} rule" if match else None
