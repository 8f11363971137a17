"""When two examples ask the same, and when their answers contradict each other."""

from __future__ import annotations

import re
import unicodedata

CONFLICT_COSINE = 0.96
"""Of two questions from which they are nearly the same one, if they name the same numbers too."""

_NUMBER = re.compile(r"\d+")


def folded(text: str) -> str:
    """Equal for texts that differ in case, white space or Unicode form only."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def bare(text: str) -> str:
    """Letters and digits of a text alone, folded: equal for texts that differ in punctuation,
    spaces or accents too."""
    parts = unicodedata.normalize("NFKD", folded(text))
    return "".join(character for character in parts if character.isalnum())


def same_numbers(one: str, other: str) -> bool:
    """Whether two questions name the same numbers in the same order: sums that differ in a number
    only are near each other for an embedding, and have different answers."""
    return _NUMBER.findall(one) == _NUMBER.findall(other)


def contradict(one: str | None, other: str | None) -> bool:
    """Whether two labels differ. Without a label nothing tells a contradiction from other words
    for the same answer."""
    if one is None or other is None:
        return False
    return folded(one) != folded(other)
