"""Sessions of the console: known to every process, over when idle and in any case, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules_store.operations import sessions
from rules_store.operations.sessions import IDLE, LIFETIME
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, open_store


async def start(store: RuleStore, digest: str) -> None:
    await store.sessions.start(digest, actor="ada", key_id="admin", key_proof="p")


async def test_another_process_knows_a_session_until_it_is_ended(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    await start(store, "one")
    other = await open_store(tmp_path, clock=clock)
    found = await other.sessions.find("one")
    assert found is not None
    assert (found.actor, found.key_id, found.key_proof) == ("ada", "admin", "p")
    await other.sessions.end("one")
    await other.close()
    assert await store.sessions.find("one") is None
    assert await store.sessions.find("never") is None


async def test_a_session_ends_when_idle_and_in_any_case(store: RuleStore, clock: Clock) -> None:
    await start(store, "idle")
    await start(store, "busy")
    passed, step = 0.0, IDLE.total_seconds() / 2
    while passed + step < LIFETIME.total_seconds():
        clock.forward(step)
        passed += step
        assert await store.sessions.find("busy") is not None
    assert await store.sessions.find("idle") is None
    clock.forward(step)
    assert await store.sessions.find("busy") is None


async def test_sessions_are_bounded_and_the_least_used_goes(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 2)
    for name in ("first", "second"):
        await start(store, name)
        clock.forward(120)
    assert await store.sessions.find("first") is not None
    clock.forward(120)
    await start(store, "third")
    left = [name for name in ("first", "second", "third") if await store.sessions.find(name)]
    assert left == ["first", "third"]
