"""What arms remember of earlier questions: each with an answer that feedback vouches for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.trajectory import Message
from app.upstream.embeddings import Vectors

DECIMALS = 5
"""Similarities are compared rounded: what batch a text was embedded in changes the last digits,
and a pass that is replayed must find the same neighbours."""


@dataclass(frozen=True, slots=True)
class Example:
    """An earlier question and the answer to show with it."""

    id: str
    question: str
    """The user message, as it was asked."""
    answer: str

    def turns(self) -> list[Message]:
        return [
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.answer},
        ]


@dataclass(frozen=True, slots=True)
class Neighbour:
    example: Example
    similarity: float
    """Cosine."""


class ExampleBank:
    """Examples with their unit vectors, one row each; nothing is ever dropped."""

    def __init__(self) -> None:
        self._examples: list[Example] = []
        self._vectors: Vectors = np.empty((0, 0), dtype=np.float32)

    def add(self, examples: Sequence[Example], vectors: Vectors) -> None:
        """`vectors` has shape (len(examples), dimension)."""
        if not examples:
            return
        known = self._vectors if self._examples else vectors[:0]
        self._vectors = np.concatenate([known, vectors])
        self._examples += examples

    def nearest(self, vector: Vectors, count: int) -> list[Neighbour]:
        """At most `count`, the nearest first; of equally near ones the newest first."""
        if not self._examples:
            return []
        similarities = np.round(self._vectors @ vector, DECIMALS)
        # The sort is stable, so that of a reversed list the newest of equals comes first.
        order = len(similarities) - 1 - np.argsort(-similarities[::-1], kind="stable")
        return [
            Neighbour(self._examples[place], float(similarities[place])) for place in order[:count]
        ]
