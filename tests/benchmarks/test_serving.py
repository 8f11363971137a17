"""The serving benchmarks' own parts; what they measure is not asserted here."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from benchmarks.serving.contents import Contents
from benchmarks.serving.latency import compare, summarise
from benchmarks.serving.material import example, question, rule
from benchmarks.serving.processes import Client, scripted_upstream
from benchmarks.serving.retrieval import _measure


def test_material_is_all_different_and_always_the_same() -> None:
    asked = {question(n) for n in range(2000)}
    assert len(asked) == 2000
    assert len({rule(n)[0] for n in range(2000)}) == 2000
    shown = {example(n)[0] for n in range(2000)}
    assert len(shown) == 2000
    assert not asked & shown, "an example's question is asked while measuring"
    assert question(7) == question(7)
    assert rule(7) == rule(7)
    assert example(7) == example(7)


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
    found = summarise(samples, {"steer, 9 rules"})
    assert found["off"]["added"]["median"] == pytest.approx(2)
    assert found["steer, 9 rules"]["added_beyond_embedding"]["median"] == pytest.approx(4)
    assert "added_beyond_embedding" not in found["steer, 0 rules"], "nothing was embedded"
    low, high = (found["off"]["added"][end] for end in ("low", "high"))
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)


def test_examples_are_compared_with_the_rules_alone_within_a_round() -> None:
    rng = np.random.default_rng(1)
    bare = rng.exponential(20, 200) + 1
    found = compare(list(bare), list(bare + 20), list(bare + 23))
    assert found["more"]["median"] == pytest.approx(3)
    assert found["ratio"] == pytest.approx({"median": 1.15, "low": 1.15, "high": 1.15})


def test_the_ratio_has_an_interval_that_says_how_sure_it_is() -> None:
    rng = np.random.default_rng(2)
    bare, rules = np.full(200, 1.0), 21 + rng.normal(0, 1, 200)
    found = compare(list(bare), list(rules), list(rules + 2 + rng.normal(0, 1, 200)))["ratio"]
    assert found["low"] < 1.1 < found["high"]
    assert 0.005 < found["high"] - found["low"] < 0.03


def test_namespaces_are_told_apart_by_what_they_hold() -> None:
    each = [Contents(100), Contents(100, 100), Contents(1000, 100)]
    assert len({contents.namespace for contents in each}) == 3
    assert Contents(1000, 10_000).crowded
    assert not Contents(1000, 1000).crowded


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
