"""The simulated queues against theory, and plans that grow with the load. Nothing is timed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from app.exceptions import ConfigurationError
from benchmarks.scaling import costs
from benchmarks.scaling.__main__ import app
from benchmarks.scaling.costs import UnitCosts, checked
from benchmarks.scaling.load import Embedder, Limits, Load
from benchmarks.scaling.plan import Capacity, Plan, capacity, ceilings, most, plan
from benchmarks.scaling.queues import VISITS, Gateway, arrivals, services, waits

LIMITS = Limits()


@pytest.fixture(scope="module")
def units() -> UnitCosts:
    return costs.read(costs.SHIPPED)


def load(**given: Any) -> Load:
    return checked(Load, {"rate": 100, **given})


def erlang_c(servers: int, offered: float) -> float:
    """Probability of waiting in M/M/c."""
    top = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return top / (sum(offered**n / math.factorial(n) for n in range(servers)) + top)


@pytest.mark.parametrize(("servers", "utilisation"), [(1, 0.5), (1, 0.8), (4, 0.7), (20, 0.9)])
def test_waits_of_many_servers_are_those_of_m_m_c(servers: int, utilisation: float) -> None:
    rng = np.random.default_rng(3)
    rate = servers * utilisation
    times = arrivals(rate, 300_000 / rate, rng)
    waited = waits(times, services(1.0, len(times), 1.0, rng), servers)
    expected = erlang_c(servers, rate) / (servers - rate)
    assert waited[5000:].mean() == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_waits_for_jobs_of_one_length_are_those_of_m_d_1(utilisation: float) -> None:
    rng = np.random.default_rng(4)
    times = arrivals(utilisation, 300_000 / utilisation, rng)
    waited = waits(times, services(1.0, len(times), 0.0, rng), 1)
    assert waited[5000:].mean() == pytest.approx(utilisation / (2 - 2 * utilisation), rel=0.05)


def test_an_embedder_that_takes_one_text_at_a_time_waits_like_m_d_1() -> None:
    """The event loop's turns take no time: what is left is one queue."""
    utilisation = 0.7
    times = arrivals(utilisation, 60_000 / utilisation, np.random.default_rng(5))
    asked = Gateway(lambda _: 0.0, lambda _: 1.0, most=1).until_asked(times, 0.0)
    expected = 1 + utilisation / (2 - 2 * utilisation)
    assert asked[2000:].mean() == pytest.approx(expected, rel=0.08)


def test_the_event_loop_gives_every_request_its_turns() -> None:
    turns: Counter[int] = Counter()

    def visit(number: int) -> float:
        turns[number] += 1
        return 1.0

    asked = Gateway(visit, None, away=0.5).until_asked(np.array([0.0, 100.0]), 7.0)
    assert asked == pytest.approx([2.5, 2.5])
    assert turns == {0: VISITS, 1: VISITS}


def test_a_crowd_shares_a_batch_and_a_lone_text_waits_for_nobody() -> None:
    taken: list[int] = []

    def batch(texts: int) -> float:
        taken.append(texts)
        return 1.0

    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 10.0])
    asked = Gateway(lambda _: 0.0, batch, most=3).until_asked(times, 0.0)
    assert taken == [1, 3, 1, 1]
    assert asked == pytest.approx([1.0, 1.9, 1.8, 1.7, 2.6, 1.0])


@pytest.mark.parametrize("burst", [1.0, 3.0])
def test_arrivals_keep_their_mean_rate(burst: float) -> None:
    times = arrivals(50, 20_000, np.random.default_rng(6), burst)
    assert len(times) / 20_000 == pytest.approx(50, rel=0.05)
    assert (np.diff(times) >= 0).all()


def test_a_crowd_leaves_a_gateway_less_room(units: UnitCosts) -> None:
    even, crowded = (capacity(load(burst=b), units, LIMITS).rate for b in (1.0, 3.0))
    assert crowded < even


@pytest.mark.parametrize("embedder", list(Embedder))
def test_more_load_never_needs_fewer_of_anything(units: UnitCosts, embedder: Embedder) -> None:
    given = {"embedder": embedder, "sample_rate": 0.05}
    one = capacity(load(**given), units, LIMITS)
    plans = [plan(load(rate=r, **given), units, LIMITS, one) for r in (1, 40, 41, 300, 2000, 9000)]
    for name in ("gateways", "transactions", "growth_gb", "event_lock", "calls", "databases"):
        values = [getattr(each, name) for each in plans]
        assert values == sorted(values), name
    assert plans[-1].gateways > plans[0].gateways == 1


def test_a_gateway_at_its_capacity_keeps_its_limits(units: UnitCosts) -> None:
    found = capacity(load(), units, LIMITS)
    assert found.p99_ms <= LIMITS.p99_ms
    assert max(found.loop, found.embedder) <= LIMITS.utilisation + 1e-9
    tight = capacity(load(), units, Limits(p99_ms=found.p99_ms * 0.8))
    assert (tight.rate, tight.bound) < (found.rate, "q")
    with pytest.raises(ConfigurationError, match="p99_ms"):
        capacity(load(), units, Limits(p99_ms=0.001))


def test_long_answers_are_bound_by_open_streams(units: UnitCosts) -> None:
    found = capacity(load(tokens_per_second=2), units, LIMITS)
    assert found.bound == "open streams"
    assert found.rate * 150 < LIMITS.open_requests / 2


def test_without_learning_there_are_no_workers_and_no_lock(units: UnitCosts) -> None:
    made: Plan = plan(load(sample_rate=0), units, LIMITS)
    assert (made.workers, made.calls, made.event_lock, made.token_share) == (0, 0, 0, 0)


def test_ceilings_come_lowest_first_and_learning_less_moves_its_own(units: UnitCosts) -> None:
    one = Capacity(50, "embedder", 60, 0.3, 0.7)
    much, little = (ceilings(load(sample_rate=s), units, LIMITS, one) for s in (0.1, 0.01))
    assert [each.rate for each in much] == sorted(each.rate for each in much)
    lock = [
        next(each.rate for each in found if "event log" in each.what) for found in (much, little)
    ]
    assert lock[1] == pytest.approx(10 * lock[0])


def test_the_largest_that_fits_is_found() -> None:
    assert most(lambda value: value <= 3.0, 10.0) == pytest.approx(3.0, abs=0.02)
    assert most(lambda value: True, 10.0) == 10.0
    assert most(lambda value: False, 10.0) == 0.0


def test_unit_costs_survive_their_file(units: UnitCosts, tmp_path: Path) -> None:
    costs.write(units, tmp_path / "costs.json")
    assert costs.read(tmp_path / "costs.json") == units


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("gateway", "chunk_ms"), -1, "gateway.chunk_ms"),
        (("gated", "store", "wal_bytes"), None, "gated.store.wal_bytes"),
        (("embedding", "batch"), 0, "embedding.batch"),
        (("idle", "surprise"), 1, "idle.surprise"),
    ],
)
def test_a_wrong_unit_cost_is_named(
    units: UnitCosts, tmp_path: Path, path: tuple[str, ...], value: Any, named: str
) -> None:
    raw = orjson.loads(units.model_dump_json())
    place = raw
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    file = tmp_path / "costs.json"
    file.write_bytes(orjson.dumps(raw))
    with pytest.raises(ConfigurationError, match=named):
        costs.read(file)
    with pytest.raises(ConfigurationError, match="nowhere"):
        costs.read(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate", "many"), ("rate", 0), ("sample_rate", 1.5), ("burst", 5), ("namespaces", 0)],
)
def test_a_wrong_load_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        checked(Load, {"rate": 1, name: value})


def test_the_command_prints_a_plan_and_draws_it(tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    made = CliRunner().invoke(app, ["simulate", "--rate", "250", "--plot", str(picture)])
    assert made.exit_code == 0, made.output
    assert picture.read_bytes().startswith(b"\x89PNG")
