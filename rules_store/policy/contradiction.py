"""Rules of the two polarities that say the opposite of each other."""

from __future__ import annotations

import re

OPPOSITE_COSINE = 0.75
"""Texts further apart are about different things: negation hardly moves an embedding."""
OPPOSITES = 5
"""Of the nearest rules so many are compared by their words."""
_SHARED = 0.5
_IDLE_WORDS = """
do not don don't never avoid without no must mustn always should shouldn be to t a an the of in on
for and or it its is are as by with that this when before after you
"""
_IDLE = frozenset(_IDLE_WORDS.split())
"""Negations, and words that say nothing by themselves."""
_WORD = re.compile(r"\w+")


def contradict(positive: str, negative: str) -> bool:
    """Whether one tells to do what the other one tells not to do: their content words are mostly
    the same (Jaccard index)."""
    one, other = _content(positive), _content(negative)
    shared = len(one & other)
    return shared >= 2 and shared >= _SHARED * len(one | other)


def _content(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if word not in _IDLE}
