"""A loop that stood still is told of, one that was a little late is not."""

from __future__ import annotations

import asyncio

import pytest

from app.observability.metrics import Metrics
from app.observability.watchdog import INTERVAL, watch_loop


async def test_a_pause_is_counted_with_its_length() -> None:
    now = 100.0
    pauses = iter([0.0, 0.09, 0.4, 2.0])

    async def sleep(seconds: float) -> None:
        nonlocal now
        assert seconds == INTERVAL
        try:
            now += seconds + next(pauses)
        except StopIteration:
            raise asyncio.CancelledError from None

    metrics = Metrics()
    with pytest.raises(asyncio.CancelledError):
        await watch_loop(metrics, clock=lambda: now, busy=lambda: now, sleep=sleep)
    told = metrics.render().decode()
    assert "ttcl_loop_stood_still_seconds_count 2.0" in told
    assert 'ttcl_loop_stood_still_seconds_bucket{le="0.5"} 1.0' in told
