"""Rate and budget by clocks that only move when told to, on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.trace import INVALID_SPAN

from app.access.callers import ANYONE, Caller, caller_of
from app.access.metering import Charge, Meter, estimated_cost
from app.chat.call import SteeredRequest, Stream
from app.chat.relay import Relay
from app.domain.trajectory import Cost, Mode
from app.exceptions import TooManyRequests
from app.upstream.capabilities import Capabilities
from rules_store.errors import StoreUnavailable
from rules_store.models.events import Change
from rules_store.models.keys import DailyKeyUsage, NewKey, Permission
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, open_store

DAY = 86_400


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RuleStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


class Metered(Meter):
    """A meter whose two clocks are one that stands still."""

    def __init__(self, store: RuleStore, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        super().__init__(
            store, clock=self.clock, monotonic=lambda: self.clock().timestamp() - 1_000_000
        )


async def key_of(store: RuleStore, **limits: Any) -> Caller:
    new = NewKey("k", ("a",), (Permission.CHAT,), **limits)
    return caller_of((await store.keys.create(new, change=Change("tester", "test")))[0])


def wait_of(meter: Meter, caller: Caller) -> float | None:
    """Seconds that a refusal asks to wait; None where there is none."""
    try:
        meter.admit(caller)
    except TooManyRequests as refusal:
        return refusal.retry_after
    return None


async def test_a_full_minute_at_once_and_then_one_by_one(store: RuleStore) -> None:
    meter, caller = Metered(store), await key_of(store, requests_per_minute=20)
    for left in range(19, -1, -1):
        allowance = meter.admit(caller)
        assert allowance is not None
        assert (allowance.limit, allowance.remaining) == (20, left)
    assert wait_of(meter, caller) == 3
    meter.clock.forward(0.5)
    assert wait_of(meter, caller) == 3, "2.5 s, and never too early"
    meter.clock.forward(2.5)
    assert wait_of(meter, caller) is None
    assert wait_of(meter, caller) == 3
    meter.clock.forward(3600)
    assert [wait_of(meter, caller) for _ in range(21)] == [None] * 20 + [3]


async def test_each_key_has_its_own_and_the_environments_none(store: RuleStore) -> None:
    meter = Metered(store)
    one, two = [await key_of(store, requests_per_minute=1) for _ in range(2)]
    assert [wait_of(meter, caller) for caller in (one, two, one)] == [None, None, 60]
    assert [meter.admit(ANYONE) for _ in range(100)] == [None] * 100


async def test_a_patched_rate_counts_at_once(store: RuleStore) -> None:
    meter, caller = Metered(store), await key_of(store, requests_per_minute=1)
    assert [wait_of(meter, caller) for _ in range(2)] == [None, 60]
    assert caller.key is not None
    key = await store.keys.patch(
        caller.key.id, {"requests_per_minute": None}, change=Change("t", "t")
    )
    assert [wait_of(meter, caller_of(key)) for _ in range(5)] == [None] * 5


async def test_the_budget_lasts_until_midnight_utc(store: RuleStore) -> None:
    meter, caller = Metered(store), await key_of(store, tokens_per_day=100)
    meter.charge(caller, Cost(1, 60, 39))
    assert wait_of(meter, caller) is None
    meter.charge(caller, Cost(1, 1, 0))
    assert wait_of(meter, caller) == DAY / 2  # the clock says noon
    await meter.flush()
    assert wait_of(meter, caller) == DAY / 2
    meter.clock.forward(DAY / 2 - 0.25)
    assert wait_of(meter, caller) == 1
    meter.clock.forward(0.25)
    assert wait_of(meter, caller) is None


async def test_gateways_share_the_budget_once_they_have_flushed(store: RuleStore) -> None:
    clock = Clock()
    here, there = Metered(store, clock), Metered(store, clock)
    caller = await key_of(store, tokens_per_day=100)
    there.charge(caller, Cost(1, 100, 0))
    await here.flush()
    assert wait_of(here, caller) is None
    await there.flush()
    await here.flush()
    assert wait_of(here, caller) == DAY / 2


async def test_a_restart_forgets_no_spend(store: RuleStore) -> None:
    before, caller = Metered(store), await key_of(store, tokens_per_day=100)
    before.charge(caller, Cost(1, 100, 0))
    await before.flush()
    after = Metered(store)
    await after.flush()
    assert wait_of(after, caller) == DAY / 2


async def test_what_could_not_be_written_is_written_later_and_once(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter, caller = Metered(store), await key_of(store, tokens_per_day=10)
    assert caller.key is not None
    day = meter.today()
    meter.admit(caller)
    meter.charge(caller, Cost(1, 10, 0))

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("locked")

    with monkeypatch.context() as broken:
        broken.setattr(store.keys, "add_use", fail)
        await meter.flush()
    assert wait_of(meter, caller) is not None, "it counts all the same"
    assert await store.keys.spend(day) == {}
    for _ in range(2):
        await meter.flush()
    assert await store.keys.spend(day) == {caller.key.id: DailyKeyUsage(1, 10)}
    assert (await store.keys.get(caller.key.id)).last_used_at == meter.clock.now


async def test_nothing_used_writes_nothing(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Metered(store)
    await key_of(store)
    monkeypatch.setattr(store.keys, "add_use", None)
    await meter.flush()


def test_an_estimate_is_a_token_for_four_characters() -> None:
    assert estimated_cost("x" * 41, 41) == Cost(1, 10, 11)
    assert estimated_cost("", 0).tokens == 0


async def test_a_bill_is_paid_once(store: RuleStore) -> None:
    meter, caller = Metered(store), await key_of(store)
    assert caller.key is not None
    bill = Charge(meter, caller)
    bill.pay(Cost(1, 10, 5))
    bill.pay(Cost(1, 10, 5))
    assert meter.spent(caller.key.id) == 15
    assert not Charge(meter, ANYONE).open


async def test_a_stream_that_nobody_reads_is_paid_once(store: RuleStore) -> None:
    """Its client went between the headers and the first event."""

    class Opened:
        status = 200
        span = INVALID_SPAN
        is_stream = True
        headers = ()

        async def chunks(self) -> AsyncIterator[bytes]:
            yield b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'

    @asynccontextmanager
    async def open_chat(body: bytes) -> AsyncIterator[Opened]:
        yield Opened()

    meter, caller = Metered(store), await key_of(store)
    assert caller.key is not None
    call: Any = SimpleNamespace(
        caller=caller,
        raw=b"{}",
        verbatim=True,
        messages=[{"role": "user", "content": "x" * 400}],
        model=SimpleNamespace(id="m"),
        mode=Mode.OFF,
    )

    async def settle(*_: Any) -> bool:
        return False  # off has nothing to settle

    def capabilities_of(model: str) -> Capabilities:
        return Capabilities()

    upstream = cast(Any, SimpleNamespace(open_chat=open_chat, capabilities_of=capabilities_of))
    unused = cast(Any, None)
    relay = Relay(upstream, cast(Any, SimpleNamespace(settle=settle)), unused, meter)
    stream = await relay.answer(call, SteeredRequest(Mode.OFF))
    assert isinstance(stream, Stream)
    await stream.close()
    await stream.close()
    assert meter.spent(caller.key.id) == 100
