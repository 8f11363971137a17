"""The model that writes rules, where it is another one than the served model.

It is asked as long as it answers. Where it fails the served model writes instead, and the episode
says so; after a failure that may last it is left alone for a while, so that a server that hangs
does not hold up every job in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.exceptions import (
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.upstream.types import ChatBackend

REST = 60.0
"""Seconds for which it is not asked after a failure."""


OF_THE_PROMPT = (400, 413, 422)
"""Refusals that say nothing of the next prompt."""


class DistillerModel:
    def __init__(
        self, backend: ChatBackend, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`backend`: the server that has it; `name`: its name there."""
        self.backend = backend
        self.name = name
        self.failure: str | None = None
        """Why it does not answer, as far as its last call says; None where it does."""
        self.stood_in = 0
        """How often the served model wrote in its place, in this process; for metrics."""
        self._clock = clock
        self._rests_until = float("-inf")

    @property
    def rests(self) -> bool:
        return self._clock() < self._rests_until

    def answered(self) -> None:
        self.failure = None

    def replaced(self) -> None:
        """The served model has to write."""
        self.stood_in += 1

    def failed(self, error: UpstreamError) -> None:
        """`failure` says it without the words of its server, which may repeat a client's."""
        if isinstance(error, UpstreamRejected):
            # It comes at once, and may be of one prompt alone.
            if error.status not in OF_THE_PROMPT:
                self.failure = f"it refuses, with status {error.status}"
            return
        own = isinstance(error, UpstreamUnavailable | UpstreamTimeout)
        self.failure = error.message if own else "it answers with an error of its own"
        self._rests_until = self._clock() + REST
