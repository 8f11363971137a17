"""What every grader is: it reads the gold answer once, then judges any number of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class UnreadableGold(ValueError):
    """The gold answer can't be understood: the question is reported and left out, not guessed."""


@dataclass(frozen=True, slots=True)
class Grade:
    score: float
    """0 or 1 where an answer is right or wrong, a measure in [0, 1] for open answers."""
    answer: str | None
    """What was taken for the final answer; None when there was none, or for open answers."""


class Gold(Protocol):
    """One gold answer, read."""

    async def grade(self, text: str) -> Grade:
        """Judge one response. Never raises for what a model wrote."""
        ...


class Grader(Protocol):
    name: str
    graded: bool
    """True for measures in [0, 1], False where an answer is right or wrong."""

    async def read(self, gold: str, question: str) -> Gold:
        """Raises `UnreadableGold`."""
        ...
