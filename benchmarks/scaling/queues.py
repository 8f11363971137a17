"""Queues, simulated event by event. Times are in seconds.

`served` is a first-come queue of c servers by Kiefer and Wolfowitz's recursion (Transactions of the
AMS 1955): whoever comes takes the server that is free first. `Gateway` is one process of the
service: an event loop that does one thing at a time and an embedder that takes what waits in
batches. Tests hold both to M/M/c and M/D/1.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CROWDED = 0.2
"""Share of the time in which a bursty stream comes at `burst` times its mean rate."""
PHASE = 5.0
"""Mean seconds of such a crowd."""
VISITS = 3
"""Turns that a request takes on the event loop: until its text is embedded, until the model is
asked, and at its end."""


def arrivals(rate: float, seconds: float, dice: np.random.Generator, burst: float = 1.0) -> Array:
    """Times in [0, seconds). `burst` 1 is Poisson; above it the rate switches between `burst`
    times the mean and a lower one (a Markov-modulated Poisson process of two states)."""
    if burst == 1.0:
        return _poisson(rate, 0.0, seconds, dice)
    low = (1 - CROWDED * burst) / (1 - CROWDED)
    parts, start = [], 0.0
    crowded = bool(dice.random() < CROWDED)
    while start < seconds:
        mean = PHASE if crowded else PHASE * (1 - CROWDED) / CROWDED
        end = min(seconds, start + dice.exponential(mean))
        parts.append(_poisson(rate * (burst if crowded else low), start, end, dice))
        start, crowded = end, not crowded
    return np.concatenate(parts)


def _poisson(rate: float, start: float, end: float, dice: np.random.Generator) -> Array:
    times: Array = np.sort(dice.uniform(start, end, dice.poisson(rate * (end - start))))
    return times


def services(mean: float, count: int, spread: float, dice: np.random.Generator) -> Array:
    """Gamma-distributed with this coefficient of variation: 0 is fixed, 1 exponential."""
    if spread == 0 or mean == 0:
        return np.full(count, mean)
    shape = 1 / spread**2
    return dice.gamma(shape, mean / shape, count)


def served(times: Array, lengths: Array, servers: int) -> Array:
    """How long each waits for one of `servers`, in order of arrival."""
    free = [0.0] * servers
    waits = np.empty(len(times))
    for at, (time, length) in enumerate(zip(times, lengths, strict=True)):
        start = max(time, heapq.heappop(free))
        waits[at] = start - time
        heapq.heappush(free, start + length)
    return waits


@dataclass(slots=True)
class Gateway:
    """`visit(n)`: seconds of a turn on the loop, for request n. `batch(k)`: seconds to embed k
    texts, at most `most`; None where that is done elsewhere and takes `away` seconds. `shared`: as
    two threads of one core, each is at half speed while the other works too."""

    visit: Callable[[int], float]
    batch: Callable[[int], float] | None
    most: int = 8
    away: float = 0.0
    shared: bool = False
    _now: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _turns: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)
    _texts: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)
    _work: dict[str, tuple[float, Callable[[], None]]] = field(default_factory=dict)
    """What loop and embedder are at: seconds of work left, and what follows."""
    _since: float = 0.0
    """When these were true."""
    _plans: int = 0

    def open(self, times: Array, answer: Callable[[int], float]) -> Array:
        """Seconds from each arrival until the model is asked. `answer(n)`: seconds that it then
        takes, at whose end the request's last turn comes."""
        asked = np.zeros(len(times))

        def leave(number: int) -> None:
            asked[number] = self._now - times[number]
            self._at(answer(number), lambda: self._turn(number, lambda: None))

        for number, time in enumerate(times):
            self._at(time, partial(self._enter, number, leave))
        self._run(np.inf)
        return asked

    def closed(self, clients: int, seconds: float) -> float:
        """Requests a second while each of `clients` asks one after the other and the model answers
        at once."""
        done = 0

        def ask(number: int) -> None:
            self._enter(number, lambda number: self._turn(number, lambda: again(number)))

        def again(number: int) -> None:
            nonlocal done
            done += 1
            ask(number)

        for number in range(clients):
            self._at(0.0, partial(ask, number))
        self._run(seconds)
        return done / seconds

    def _enter(self, number: int, left: Callable[[int], None]) -> None:
        def embedded() -> None:
            self._turn(number, lambda: left(number))

        self._turn(number, lambda: self._embed(number, embedded))

    def _turn(self, number: int, then: Callable[[], None]) -> None:
        self._turns.append((number, then))
        self._start()

    def _embed(self, number: int, then: Callable[[], None]) -> None:
        if self.batch is None:
            self._at(self.away, then)
            return
        self._texts.append((number, then))
        self._start()

    def _start(self) -> None:
        """Work for whatever is idle."""
        if self.batch is not None and self._texts and "embedder" not in self._work:
            taken = [self._texts.popleft() for _ in range(min(self.most, len(self._texts)))]
            self._begin("embedder", self.batch(len(taken)), partial(self._embedded, taken))
        if self._turns and "loop" not in self._work:
            number, then = self._turns.popleft()
            self._begin("loop", self.visit(number), then)

    def _embedded(self, taken: list[tuple[int, Callable[[], None]]]) -> None:
        for _, then in taken:
            then()

    def _begin(self, who: str, seconds: float, then: Callable[[], None]) -> None:
        self._advance()
        self._work[who] = (seconds, then)
        self._plan()

    @property
    def _speed(self) -> float:
        return 1 / len(self._work) if self.shared else 1.0

    def _advance(self) -> None:
        done = (self._now - self._since) * self._speed if self._work else 0.0
        self._work = {who: (left - done, then) for who, (left, then) in self._work.items()}
        self._since = self._now

    def _plan(self) -> None:
        """The next end, as far as nothing else begins or ends before it."""
        self._plans += 1
        if self._work:
            who = min(self._work, key=lambda each: self._work[each][0])
            left = max(0.0, self._work[who][0])
            self._at(left / self._speed, partial(self._ended, who, self._plans))

    def _ended(self, who: str, planned: int) -> None:
        if planned != self._plans:
            return
        self._advance()
        _, then = self._work.pop(who)
        self._plan()
        then()
        self._start()

    def _at(self, delay: float, work: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self._now + delay, self._number, work))

    def _run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self._now, _, work = heapq.heappop(self._events)
            work()
