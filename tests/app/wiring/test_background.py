"""The sweep of the gateway: no error of one round ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.wiring import gateway
from rules_store.errors import StoreUnavailable
from rules_store.store import RuleStore
from tests.rules_store.helpers import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RuleStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


async def test_the_sweep_goes_on_after_any_error(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [StoreUnavailable("locked"), ValueError("a bug"), OSError("disk")]
    swept = asyncio.Event()

    async def sweep(older_than: timedelta) -> int:
        if errors:
            raise errors.pop(0)
        swept.set()
        return 0

    monkeypatch.setattr(store.episodes, "sweep_interrupted", sweep)
    monkeypatch.setattr(gateway, "SWEEP_INTERVAL", 0.001)
    task = asyncio.create_task(gateway._sweep(store, gateway.EffectWatch(store)))
    waiting = asyncio.create_task(swept.wait())
    await asyncio.wait({task, waiting}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert swept.is_set()
    for each in (task, waiting):
        each.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
