"""`/readyz` names what is wrong, and what is wrong is no 500."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import health
from app.learning import reembed
from app.learning.reembed import PROBE_INTERVAL
from tests.compat.helpers import QUESTION, RULE, ask
from tests.fakes import ScriptedUpstream
from tests.gateway import NO_TLS, Gateway, running_gateway


@pytest.fixture
def gateway(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(reembed, "INTERVAL", 0.1)
    with running_gateway(upstream, learn=False) as running:
        yield running


def ready(gateway: Gateway) -> dict[str, Any]:
    return dict(httpx.get(f"{gateway.url}/readyz", verify=NO_TLS, timeout=30).json())


def database(gateway: Gateway) -> Path:
    return Path(gateway.app.state.ttcl.settings.data_dir) / "ttcl.db"


def test_a_deleted_database_is_named(gateway: Gateway) -> None:
    assert ready(gateway)["degraded"] == []
    database(gateway).unlink()
    found = ready(gateway)
    assert found["degraded"] == ["database"]
    assert "is gone" in found["checks"]["database"]["reason"]
    database(gateway).write_bytes(b"")
    assert "another one" in ready(gateway)["checks"]["database"]["reason"]


def test_a_locked_database_is_named(gateway: Gateway) -> None:
    with closing(sqlite3.connect(database(gateway), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = ready(gateway)
        other.execute("ROLLBACK")
    assert "database" in found["degraded"]
    assert re.search("locked|busy", found["checks"]["database"]["reason"])
    assert ready(gateway)["degraded"] == []


def test_a_disk_that_is_full_is_named(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LEAST_FREE", 2**80)
    found = ready(gateway)
    assert found["degraded"] == ["disk"]
    assert found["status"] == "degraded"


async def test_an_embedder_of_another_size_is_no_500_and_heals_by_itself(gateway: Gateway) -> None:
    gateway.add_rule("sized", RULE, QUESTION)
    assert gateway.embedder is not None
    state = gateway.app.state.ttcl
    gateway.embedder.dimension = 96
    new = {"namespace": "sized", "polarity": "positive", "text": "Add.", "actor": "a"}
    for path, body in (
        ("/rules", {**new, "state": "active", "reason": "r"}),
        ("/rules:explain", {"namespace": "sized", "text": QUESTION}),
    ):
        answer = gateway.admin("POST", path, json=body)
        assert answer.status_code < 500 or answer.json()["error"]["code"] == "embedder_changed"
    body = ask("steer", QUESTION, ttcl={"namespace": "sized"})
    assert (await gateway.post(body)).status_code == 200
    state.reembedding._probed_at -= PROBE_INTERVAL
    for _ in range(200):
        if state.store.dimension == 96 and not state.reembedding.changed:
            break

        await asyncio.sleep(0.05)
    answer = await gateway.post(body)
    assert [rule["id"] for rule in answer.json()["ttcl"]["rules"]] != []
    assert ready(gateway)["degraded"] == []
