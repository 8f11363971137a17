"""Whose turn it is, where many wait for what is scarce: who was served least lately goes first, so
that one that floods waits for itself alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import cachetools

Tenant = tuple[str, str]
"""Key and namespace: turns go round among keys, and among the namespaces of each. Without the first
a key of all namespaces would have a turn for each name that it thinks of."""
_REMEMBERED = 10_000


class Turns:
    """The order among tenants that wait; remembers the latest ones that were served."""

    def __init__(self) -> None:
        self._served: cachetools.LRUCache[Hashable, int] = cachetools.LRUCache(2 * _REMEMBERED)
        self._count = 0

    def order(self, waiting: Iterable[Tenant]) -> list[Tenant]:
        """Next first; of those that were never served in the order they are given in."""
        return sorted(waiting, key=lambda tenant: (self._at(tenant[0]), self._at(tenant)))

    def took(self, tenant: Tenant) -> None:
        """Its turn was now."""
        self._count += 1
        self._served[tenant[0]] = self._served[tenant] = self._count

    def _at(self, who: Hashable) -> int:
        return self._served.get(who, 0)
