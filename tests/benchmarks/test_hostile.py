"""The short form of `make test-hostile`: each flood once, and another tenant who notices nothing.
How long anything takes is measured there and not here."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.safety import hostile
from benchmarks.safety.hostile import FLOODS, Watch, prepared
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import ADMIN_KEY, MODEL, running_gateway


async def test_whatever_one_client_sends_another_is_answered_and_steered(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "LARGE", 3_000_000)
    monkeypatch.setattr(hostile, "HELD", 1.0)
    upstream.default = Reply("The answer is \\boxed{6}.")
    with running_gateway(upstream, learn_sample_rate=0.0) as gateway:
        victim, flood = await asyncio.to_thread(prepared, gateway.url, MODEL, ADMIN_KEY)
        with Watch(victim) as watch:
            await asyncio.gather(*(asyncio.to_thread(each, flood) for each in FLOODS.values()))
        noticed = watch.noticed()
        assert noticed.requests > 0
        assert noticed.failed == 0
        # On a machine that is busy with other things an embedding may take longer than it may.
        assert 10 * noticed.unsteered <= noticed.requests
        load = gateway.app.state.ttcl.load
        for _ in range(1000):
            if load.open == 0:
                break
            await asyncio.sleep(0.01)
        assert load.open == 0
        assert gateway.app.state.ttcl.upstream.capabilities_of(MODEL).refused() == set()
