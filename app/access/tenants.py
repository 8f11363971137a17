"""For whom work is done, and how what is scarce is shared among them: by turns, and none has more
than its share, so that one that floods loses only its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from rules_store.policy.turns import Tenant, Turns

NOBODY: Tenant = ("", "")
tenant: ContextVar[Tenant] = ContextVar("tenant", default=NOBODY)
"""Of the request or the job under way: the name of its key (of a job none) and its namespace."""


class FairSlots:
    """Slots for work that takes long. Of those who wait, whoever was served least lately is next;
    no key has more than `share` of them, whatever is free. A slot is free again `rest` times as
    long after its work as that took: what holds up everybody while it runs, as all that holds
    Python's interpreter lock does, then leaves most of the time to others."""

    def __init__(self, slots: int, share: int, rest: float = 0.0) -> None:
        self._free = slots
        self._share = share
        self._rest = rest
        self._turns = Turns()
        self._held: dict[str, int] = {}
        self._waiting: dict[Tenant, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """For the present tenant, once it is its turn."""
        who = tenant.get()
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(who, turn)
            else:
                self._give_back(who)
            raise
        began = loop.time()
        try:
            yield
        finally:
            if self._rest:
                loop.call_later(self._rest * (loop.time() - began), self._give_back, who)
            else:
                self._give_back(who)

    def _hand_out(self) -> None:
        for who in self._turns.order(self._waiting):
            if not self._free:
                return
            if self._held.get(who[0] or who[1], 0) < self._share:
                turn = self._waiting[who].popleft()
                if not self._waiting[who]:
                    del self._waiting[who]
                self._free -= 1
                self._held[who[0] or who[1]] = self._held.get(who[0] or who[1], 0) + 1
                self._turns.took(who)
                turn.set_result(None)

    def _forget(self, who: Tenant, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(who)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[who]

    def _give_back(self, who: Tenant) -> None:
        name = who[0] or who[1]
        self._free += 1
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]
        self._hand_out()
