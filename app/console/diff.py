"""What differs between two texts, word by word."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

LONGEST = 4000
"""Words of one side. Longer texts are not compared: the time grows with the product of both."""
# 12:15 and 9.50 are one word each.
_PIECES = re.compile(r"\s+|\w+(?:[.,:/-]\w+)*|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    changed: bool


def compare(old: str, new: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts as pieces, in order; what the other one lacks is `changed`. The pieces of a side
    joined are that side."""
    left, right = _PIECES.findall(old), _PIECES.findall(new)
    if max(len(left), len(right)) > LONGEST:
        return [Piece(old, False)], [Piece(new, False)]
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        for side, words in ((0, left[i1:i2]), (1, right[j1:j2])):
            if words:
                sides[side].append(Piece("".join(words), kind != "equal"))
    return _joined(sides[0]), _joined(sides[1])


def _joined(pieces: list[Piece]) -> list[Piece]:
    """White space alone between two changes is part of one change."""
    joined: list[Piece] = []
    for position, piece in enumerate(pieces):
        between = 0 < position < len(pieces) - 1 and not piece.text.strip()
        if between and pieces[position - 1].changed and pieces[position + 1].changed:
            piece = Piece(piece.text, True)
        if joined and joined[-1].changed == piece.changed:
            joined[-1] = Piece(joined[-1].text + piece.text, piece.changed)
        else:
            joined.append(piece)
    return joined
