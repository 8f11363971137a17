"""How many requests are under way, and when that is too many: learning gives way first, then new
requests are refused quickly, so that those under way end well."""

from __future__ import annotations

from collections.abc import Callable

from app.exceptions import Overloaded

RETRY_AFTER = 1.0
"""Seconds that a refused client is asked to wait."""
BUSY = 0.5
"""Share of the room from which nothing new is learned."""


SHARE = 0.75
"""Of the room, for one key where there are several: the rest is there for whoever comes."""


class LoadLimit:
    """Of one process. `most`: requests under way at most, streams until their end. `shared`:
    whether there are several keys, none of which may have all of it. `tell`: is told how many are
    open with each that comes or goes."""

    def __init__(
        self,
        most: int,
        shared: Callable[[], bool] = lambda: False,
        tell: Callable[[int], None] = lambda under_way: None,
    ) -> None:
        self.most = most
        self.open = 0
        self._shared = shared
        self._tell = tell
        self._held: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        return self.open > self.most * BUSY

    def enter(self, key: str) -> Callable[[], None]:
        """Takes a place for a request of this key; what is returned gives it back, and must be
        called once. Raises `Overloaded`."""
        held = self._held.get(key, 0)
        if self.open >= self.most:
            raise Overloaded(
                f"{self.most} requests are under way; try again soon", retry_after=RETRY_AFTER
            )
        if self._shared() and held >= max(1, int(self.most * SHARE)):
            raise Overloaded(
                f"{held} requests of this key are under way; try again soon",
                retry_after=RETRY_AFTER,
            )
        self.open += 1
        self._tell(self.open)
        self._held[key] = held + 1
        return lambda: self._leave(key)

    def _leave(self, key: str) -> None:
        self.open -= 1
        self._tell(self.open)
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
