"""What requests were given and what came of it, by namespace, in memory. A cache of SQL, like the
index of explored questions; brute force, since no namespace keeps more than some hundreds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rules_store.models.evidence import IndexedChoice
from rules_store.models.rules import Vector
from rules_store.policy.choice import Given, kernel
from rules_store.policy.lift import Tally

_Number = TypeVar("_Number", bound=np.generic)

_ORDER = tuple(Given)
_FIRST = 16
"""Rows that a namespace has room for at first; doubled as they are needed."""
_DAY = 86_400.0


class ChoiceIndex:
    """At most `keep` of each namespace, the latest."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._namespaces: dict[str, _Choices] = {}

    def put(self, choices: Iterable[IndexedChoice]) -> None:
        """Each in place of what is known of its episode; the oldest change first."""
        for choice in choices:
            own = self._namespaces.get(choice.namespace)
            if own is None:
                own = self._namespaces[choice.namespace] = _Choices(self.keep)
            own.put(choice)

    def forget(self, namespace: str) -> None:
        self._namespaces.pop(namespace, None)

    def tallies(self, namespace: str, now: datetime, half_life_days: float) -> dict[Given, Tally]:
        """Outcomes by what was given, those of `half_life_days` ago at half of their weight."""
        own = self._namespaces.get(namespace)
        return {} if own is None else own.tallies(own.retained(now, half_life_days))

    def near(
        self, namespace: str, vector: Vector, now: datetime, half_life_days: float, *, floor: float
    ) -> dict[Given, Tally]:
        """The same of near questions, weighted by how near they are: `policy.choice.kernel`."""
        own = self._namespaces.get(namespace)
        if own is None or own.rows is None or own.rows.shape[1] != len(vector):
            return {}
        nearness = kernel(own.rows[: own.size] @ vector, floor)
        if not nearness.any():
            return {}
        return own.tallies(own.retained(now, half_life_days) * nearness)


class _Choices:
    """One namespace's, as arrays of at most `keep` rows that are written in turn."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._places: dict[str, int] = {}
        """By episode, in the order in which they came."""
        self.size = 0
        self._numbers: NDArray[np.float64] = np.zeros((_FIRST, 4))
        """Place of `given` in its enumeration, value, weight, moment in seconds."""
        self.rows: NDArray[np.float32] | None = None
        """Vectors, zeros where there is none; None while none has been seen."""

    def put(self, choice: IndexedChoice) -> None:
        at = self._place(choice.episode_id)
        given = _ORDER.index(choice.given)
        self._numbers[at] = (given, choice.value, choice.weight, choice.at.timestamp())
        if choice.vector is not None and self.rows is None:
            self.rows = np.zeros((len(self._numbers), len(choice.vector)), dtype=np.float32)
        if self.rows is not None:
            fits = choice.vector is not None and len(choice.vector) == self.rows.shape[1]
            self.rows[at] = choice.vector if fits else 0.0

    def _place(self, episode_id: str) -> int:
        at = self._places.pop(episode_id, None)
        if at is None and self.size == self._keep:
            oldest = next(iter(self._places))
            at = self._places.pop(oldest)
        if at is None:
            at = self.size
            self.size += 1
            if self.size > len(self._numbers):
                self._numbers = _doubled(self._numbers)
                self.rows = None if self.rows is None else _doubled(self.rows)
        self._places[episode_id] = at
        return at

    def retained(self, now: datetime, half_life_days: float) -> NDArray[np.float64]:
        """What age has left of the weights, shape (size,)."""
        days = (now.timestamp() - self._numbers[: self.size, 3]) / _DAY
        retained: NDArray[np.float64] = np.exp2(np.clip(-days / half_life_days, -60.0, 0.0))
        return retained

    def tallies(self, share: NDArray[np.float64]) -> dict[Given, Tally]:
        """With this share of each one's weight, shape (size,)."""
        given, value, weight = self._numbers[: self.size, :3].T
        kinds, weights = given.astype(np.intp), weight * share
        sizes = np.bincount(kinds, weights, len(_ORDER)).tolist()
        hits = np.bincount(kinds, weights * value, len(_ORDER)).tolist()
        return {
            each: Tally(hits[at], max(0.0, sizes[at] - hits[at]))
            for at, each in enumerate(_ORDER)
            if sizes[at] > 0
        }


def _doubled(rows: NDArray[_Number]) -> NDArray[_Number]:
    return np.concatenate([rows, np.zeros_like(rows)])
