"""The queues of the service, simulated. Times are in seconds.

`Gateway` is one process, in simpy: an event loop that does one thing at a time and an embedder that
takes what waits in batches. `waits` is a first-come queue of c servers by Kiefer and Wolfowitz's
recursion (Transactions of the AMS 1955): whoever comes takes the server that is free first. Tests
hold both to M/M/c and M/D/1.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

Array = np.ndarray[Any, Any]
Steps = Generator[simpy.Event, Any, None]

CROWDED = 0.2
"""Share of the time in which a bursty stream comes at `burst` times its mean rate."""
PHASE = 5.0
"""Mean seconds of such a crowd."""
VISITS = 3
"""Turns that a request takes on the event loop: until its text is embedded, until the model is
asked, and at its end."""


def arrivals(rate: float, seconds: float, rng: np.random.Generator, burst: float = 1.0) -> Array:
    """Times in [0, seconds). `burst` 1 is Poisson; above it the rate switches between `burst`
    times the mean and a lower one (a Markov-modulated Poisson process of two states)."""
    if burst == 1.0:
        return _poisson(rate, 0.0, seconds, rng)
    low = (1 - CROWDED * burst) / (1 - CROWDED)
    parts, start = [], 0.0
    crowded = bool(rng.random() < CROWDED)
    while start < seconds:
        mean = PHASE if crowded else PHASE * (1 - CROWDED) / CROWDED
        end = min(seconds, start + rng.exponential(mean))
        parts.append(_poisson(rate * (burst if crowded else low), start, end, rng))
        start, crowded = end, not crowded
    return np.concatenate(parts)


def _poisson(rate: float, start: float, end: float, rng: np.random.Generator) -> Array:
    times: Array = np.sort(rng.uniform(start, end, rng.poisson(rate * (end - start))))
    return times


def services(mean: float, count: int, spread: float, rng: np.random.Generator) -> Array:
    """Gamma-distributed with this coefficient of variation: 0 is fixed, 1 exponential."""
    if spread == 0 or mean == 0:
        return np.full(count, mean)
    shape = 1 / spread**2
    return rng.gamma(shape, mean / shape, count)


def waits(times: Array, lengths: Array, servers: int) -> Array:
    """How long each waits for one of `servers`, in order of arrival."""
    free = [0.0] * servers
    found = np.empty(len(times))
    for at, (time, length) in enumerate(zip(times, lengths, strict=True)):
        start = max(time, heapq.heappop(free))
        found[at] = start - time
        heapq.heappush(free, start + length)
    return found


@dataclass(frozen=True, slots=True)
class Gateway:
    visit: Callable[[int], float]
    """Seconds of a turn on the loop, for request n."""
    batch: Callable[[int], float] | None
    """Seconds to embed k texts; None where that is done elsewhere and takes `away` seconds."""
    most: int = 8
    """Texts of a batch at most."""
    away: float = 0.0

    def until_asked(self, times: Array, answer: float) -> Array:
        """Seconds from each arrival until the model is asked, which then answers for `answer`
        seconds, at whose end the request's last turn comes."""
        env = simpy.Environment()
        loop, texts = simpy.Resource(env), simpy.Store(env)
        asked = np.zeros(len(times))

        def turn(number: int) -> Steps:
            with loop.request() as mine:
                yield mine
                yield env.timeout(self.visit(number))

        def request(number: int) -> Steps:
            yield from turn(number)
            if self.batch is None:
                yield env.timeout(self.away)
            else:
                embedded = env.event()
                yield texts.put(embedded)
                yield embedded
            yield from turn(number)
            asked[number] = env.now - times[number]
            yield env.timeout(answer)
            yield from turn(number)

        def embedder(batch: Callable[[int], float]) -> Steps:
            while True:
                waiting = [(yield texts.get())]
                while texts.items and len(waiting) < self.most:
                    waiting.append((yield texts.get()))
                yield env.timeout(batch(len(waiting)))
                for embedded in waiting:
                    embedded.succeed()

        def arrive() -> Steps:
            for number, time in enumerate(times):
                yield env.timeout(max(0.0, time - env.now))
                env.process(request(number))

        if self.batch is not None:
            env.process(embedder(self.batch))
        env.process(arrive())
        env.run()
        return asked
