"""How often an address may try a key: guessing it is made hopeless, not the admin."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Callable

import cachetools

FAILURES = 8
"""Wrong keys of one address within the window; after them even the right one has to wait."""
BEARER_FAILURES = 50
"""The same of the admin API, whose keys scripts carry."""
WINDOW = 300.0
MOST_ADDRESSES = 10_000


class Throttle:
    def __init__(
        self, clock: Callable[[], float] = time.monotonic, failures: int = FAILURES
    ) -> None:
        self._most = failures
        self._clock = clock
        self._failed: cachetools.TTLCache[str, deque[float]] = cachetools.TTLCache(
            MOST_ADDRESSES, ttl=WINDOW, timer=clock
        )

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        failures = self._failed.get(_network(address))
        if failures is None:
            return 0.0
        horizon = self._clock() - WINDOW
        while failures and failures[0] <= horizon:
            failures.popleft()
        if len(failures) < self._most:
            return 0.0
        return failures[0] - horizon

    def failed(self, address: str) -> None:
        network = _network(address)
        failures = self._failed.get(network) or deque[float](maxlen=self._most)
        failures.append(self._clock())
        # Set anew: its time runs from the last failure.
        self._failed[network] = failures

    def succeeded(self, address: str) -> None:
        self._failed.pop(_network(address), None)


def _network(address: str) -> str:
    """An IPv6 host has a whole /64 to try from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network(f"{address.split('%')[0]}/64", strict=False))
