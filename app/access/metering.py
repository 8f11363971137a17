"""How much a key may use, and what it has used. A client never waits for this to be written.

Requests per minute are counted in this process: each of several gateways grants the whole rate.
Tokens per day are those of all gateways, as of the last look at the store a few seconds ago.
What is asked at the same time may run over the budget together; what comes after is refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from app.access.callers import Caller
from app.domain.tokens import CHARACTERS_PER_TOKEN
from app.domain.trajectory import Cost
from app.exceptions import TooManyRequests
from rules_store.errors import StoreError
from rules_store.models.keys import DailyKeyUsage, KeyUsage
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

DAY = 86_400
_ROUNDING = 1e-6
"""Who waited for as long as they were told is let in, whatever floats make of it."""


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of a key with `requests_per_minute`, after a request was admitted."""

    limit: int
    remaining: int

    def headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
        }


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    """Seconds of the monotonic clock at which it held `tokens`."""

    def take(self, limit: int, now: float) -> float | None:
        """None when a token was taken, else the seconds until there is one."""
        per_second = limit / 60
        self.tokens = min(limit, self.tokens + (now - self.at) * per_second)
        self.at = now
        if self.tokens < 1 - _ROUNDING:
            return (1 - self.tokens) / per_second
        self.tokens -= 1
        return None


@dataclass(slots=True)
class _Usage:
    at: datetime
    requests: int = 0
    tokens: int = 0

    def add(self, other: _Usage) -> None:
        self.requests += other.requests
        self.tokens += other.tokens
        self.at = max(self.at, other.at)


Ledger = dict[tuple[str, int], _Usage]
"""(key id, UTC day since the epoch) -> what was used."""


class Meter:
    def __init__(
        self,
        store: RuleStore,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._buckets: dict[str, _Bucket] = {}
        self._stored: dict[str, DailyKeyUsage] = {}
        self._stored_day = -1
        self._unwritten: Ledger = {}
        self._writing: Ledger = {}
        self._flushing = asyncio.Lock()

    def admit(self, caller: Caller) -> Allowance | None:
        """Counts one request. None for a caller without a rate. Raises `TooManyRequests`."""
        key = caller.key
        if key is None:
            return None
        now = self._clock()
        if key.tokens_per_day is not None and self.spent(key.id) >= key.tokens_per_day:
            raise TooManyRequests(
                f"This key has used its {key.tokens_per_day} tokens of today (UTC)",
                code="budget_exceeded",
                retry_after=math.ceil(DAY - now.timestamp() % DAY),
            )
        allowance = self._take(key.id, key.requests_per_minute)
        self._note(key.id, _Usage(now, requests=1))
        return allowance

    def charge(self, caller: Caller, cost: Cost) -> None:
        """Tokens that a request of this caller has cost upstream."""
        if caller.key is not None and cost.tokens:
            self._note(caller.key.id, _Usage(self._clock(), tokens=cost.tokens))

    def today(self) -> int:
        """UTC days since the epoch."""
        return _day(self._clock())

    def spent(self, key_id: str) -> int:
        """Tokens of the present UTC day."""
        day = self.today()
        stored = (
            self._stored.get(key_id, DailyKeyUsage())
            if self._stored_day == day
            else DailyKeyUsage()
        )
        return stored.tokens + sum(
            ledger[key_id, day].tokens
            for ledger in (self._unwritten, self._writing)
            if (key_id, day) in ledger
        )

    async def flush(self) -> None:
        """Writes what has been used, and reads what the keys have used today on all gateways.
        Without success it is kept for the next time."""
        async with self._flushing:
            self._writing, self._unwritten = self._unwritten, {}
            written = False
            try:
                if self._writing:
                    await self._store.keys.add_use(_uses(self._writing))
                written = True
                if self._store.keys.exist:
                    day = self.today()
                    self._stored, self._stored_day = await self._store.keys.spend(day), day
            except StoreError as error:
                log.warning("the use of keys is written later", error=str(error))
            finally:
                # Until here `spent` counted it among what is not stored.
                kept, self._writing = self._writing, {}
                if not written:
                    for (key_id, day), used in kept.items():
                        self._unwritten.setdefault((key_id, day), _Usage(used.at)).add(used)

    async def run(self, interval: float) -> None:
        """Flushes every `interval` seconds until cancelled."""
        while True:
            # Shielded: one that is cut between commit and return would be written twice.
            await asyncio.shield(self.flush())
            await asyncio.sleep(interval)

    def _take(self, key_id: str, limit: int | None) -> Allowance | None:
        if limit is None:
            self._buckets.pop(key_id, None)
            return None
        now = self._monotonic()
        bucket = self._buckets.setdefault(key_id, _Bucket(limit, now))
        wait = bucket.take(limit, now)
        if wait is not None:
            raise TooManyRequests(
                f"This key may send {limit} requests a minute",
                retry_after=math.ceil(wait - _ROUNDING),
            )
        return Allowance(limit, int(bucket.tokens + _ROUNDING))

    def _note(self, key_id: str, used: _Usage) -> None:
        self._unwritten.setdefault((key_id, _day(used.at)), _Usage(used.at)).add(used)


class Charge:
    """What one request owes, taken once, whichever of its ends comes first."""

    def __init__(self, meter: Meter, caller: Caller) -> None:
        self._meter = meter
        self._caller = caller
        self.open = caller.key is not None
        """False once it is paid, and for a caller whom nothing is charged."""

    def pay(self, cost: Cost) -> None:
        if self.open:
            self.open = False
            self._meter.charge(self._caller, cost)


def estimated_cost(prompt: str, made: int) -> Cost:
    """What a request cost, where the upstream does not tell; `made` in characters."""
    return Cost(1, len(prompt) // CHARACTERS_PER_TOKEN, math.ceil(made / CHARACTERS_PER_TOKEN))


def _day(moment: datetime) -> int:
    return int(moment.timestamp()) // DAY


def _uses(ledger: Ledger) -> list[KeyUsage]:
    return [
        KeyUsage(key_id, day, used.requests, used.tokens, used.at)
        for (key_id, day), used in ledger.items()
    ]
