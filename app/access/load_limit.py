"""How many requests are under way, and when that is too many: learning gives way first, then new
requests are refused quickly, so that those under way end well."""

from __future__ import annotations

from app.exceptions import Overloaded

RETRY_AFTER = 1.0
"""Seconds that a refused client is asked to wait."""
BUSY = 0.5
"""Share of the room from which nothing new is learned."""


class LoadLimit:
    """Of one process. `most`: requests under way at most, streams until their end."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0

    @property
    def busy(self) -> bool:
        return self.open > self.most * BUSY

    def enter(self) -> None:
        """Raises `Overloaded`. Whoever enters must `leave`."""
        if self.open >= self.most:
            raise Overloaded(
                f"{self.most} requests are under way; try again soon", retry_after=RETRY_AFTER
            )
        self.open += 1

    def leave(self) -> None:
        self.open -= 1
