"""The serving benchmarks' own parts; what they measure is not asserted here."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from benchmarks.serving.latency import summarise
from benchmarks.serving.material import question, rule
from benchmarks.serving.processes import Client, scripted_upstream
from benchmarks.serving.retrieval import _measure


def test_questions_and_rules_are_all_different_and_always_the_same() -> None:
    assert len({question(n) for n in range(2000)}) == 2000
    assert len({rule(n)[0] for n in range(2000)}) == 2000
    assert question(7) == question(7)
    assert rule(7) == rule(7)


def test_differences_are_taken_within_a_round() -> None:
    """Rounds of very different speed: medians of each kind alone would hide what was added."""
    rng = np.random.default_rng(1)
    bare = rng.exponential(20, 200) + 1
    samples = {
        "bare": list(bare),
        "off": list(bare + 2),
        "embedding": [10.0] * 200,
        "steer, 9 rules": list(bare + 14),
        "steer, 0 rules": list(bare + 1),
    }
    found = summarise(samples, {"bare": 0, "off": 0, "steer, 9 rules": 6, "steer, 0 rules": 0})
    assert found["off"]["added"]["median"] == pytest.approx(2)
    assert found["steer, 9 rules"]["added_beyond_embedding"]["median"] == pytest.approx(4)
    assert "added_beyond_embedding" not in found["steer, 0 rules"], "nothing was embedded"
    low, high = (found["off"]["added"][end] for end in ("low", "high"))
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)


def test_the_scripted_upstream_speaks_the_api() -> None:
    with scripted_upstream() as port:
        client = Client(port)
        status, _, content = client.send("POST", "/v1/chat/completions", {"model": "instant"})
        body = orjson.loads(content)
        assert (status, body["choices"][0]["finish_reason"]) == (200, "stop")
        assert body["usage"]["total_tokens"] == 29
        status, _, content = client.send("GET", "/v1/models")
        assert orjson.loads(content)["data"][0]["id"] == "instant"
        assert client.send("GET", "/nowhere")[0] == 404
        client.close()


async def test_retrieval_is_measured_on_rules_that_are_found() -> None:
    row = await _measure(400, 10)
    assert row["hits"] > 1
    assert row["lookup_ms"]["median"] > 0
    assert row["rules"] == 400
