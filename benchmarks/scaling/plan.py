"""How many of each piece a load needs and where it gives out, from unit costs and queues.

One gateway's capacity is found by bisection: the most requests a second at which its event loop and
its embedder stay under the limit of utilisation and 99 % of the requests reach the model in time.
A balancer that sends each request to a gateway by lot leaves each one a thinner stream of the same
kind, so the fleet's size is the rate over that capacity. What is fixed per request (rows, bytes,
tokens) is multiplied; PostgreSQL's cores and the workers are queues again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.exceptions import ConfigurationError
from benchmarks.scaling.costs import UnitCosts
from benchmarks.scaling.load import Embedder, Limits, Load
from benchmarks.scaling.queues import VISITS, Gateway, arrivals, services, waits

DAY = 86_400
CONNECTIONS = 9
"""Of a gateway or worker to PostgreSQL at most: a pool of four, the queue's four, the listener."""
LOOKS = 50.0
"""Times a second at most that a process looks for new events: a look is taken to last 20 ms with
what it brings, and all that is told meanwhile makes one more."""
SHIPPED_CALLS = 2
"""TTCL_LEARN_CALL_CONCURRENCY as shipped."""
SHIPPED_BUDGET = 2000
"""TTCL_LEARN_CALLS_PER_HOUR as shipped, of a namespace."""
SHIPPED_CONNECTIONS = 100
"""max_connections of PostgreSQL as shipped."""
MOST = 1e6
"""Requests a second beyond which no ceiling is looked for."""
_ENOUGH = 60_000
"""Arrivals that a queue is simulated with at most."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most requests a second of one gateway, and what it is like there."""

    rate: float
    bound: str
    """What gives out first: event loop, embedder, p99, open streams."""
    p99_ms: float
    loop: float
    embedder: float
    """Utilisation, as `loop`."""


@dataclass(frozen=True, slots=True)
class Plan:
    gateways: int
    capacity: Capacity
    embedding_cores: float
    gateway_cores: float
    open_streams: float
    gateway_mib: float
    index_mib: float
    transactions: float
    rows: float
    wal_mb: float
    growth_gb: float
    """A day, before anything is deleted."""
    database_cores: int
    databases: int
    connections: int
    event_lock: float
    """Utilisation of one event log's lock."""
    looks: float
    """Transactions a second in which processes look for events, of `transactions`."""
    jobs: float
    workers: int
    job_p99_s: float
    calls: float
    learning_tokens: float
    """A second, prompt and answer together."""
    token_share: float
    """Of all tokens that the model server writes."""
    calls_per_hour: float
    """Of each namespace, evenly spread: compare TTCL_LEARN_CALLS_PER_HOUR."""


def most(fits: Callable[[float], bool], high: float, *, steps: int = 10) -> float:
    """The largest value in (0, high] that fits, to a part in 2**steps; 0 where none does."""
    if fits(high):
        return high
    low = 0.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def time_to_model(rate: float, load: Load, costs: UnitCosts) -> float:
    """99th percentile, in seconds, of one gateway at `rate`. The chunks of open streams are so many
    and so short that they are taken as a loss of the loop's speed."""
    rng = np.random.default_rng(load.seed)
    # A minute has only some two crowds in it: too few to say how much they hurt.
    times = arrivals(rate, 60.0 if load.burst == 1 else 600.0, rng, load.burst)
    if not len(times):
        return 0.0
    speed = 1 - rate * load.chunks * costs.gateway.chunk_ms / 1000
    if speed <= 0:
        return math.inf
    turns = services(costs.gateway.stream_ms / 1000 / VISITS / speed, 4096, load.spread, rng)
    texts = services(1.0, 4096, load.spread, rng)
    drawn = itertools.cycle(range(4096))
    gateway = Gateway(
        visit=lambda _: float(turns[next(drawn)]),
        batch=(
            (lambda k: costs.embedding.of(k) / 1000 * float(texts[next(drawn)]))
            if load.embedder is Embedder.LOCAL
            else None
        ),
        most=costs.embedding.batch,
        away=costs.embedding.of(1) / 1000,
    )
    return float(np.percentile(gateway.until_asked(times, load.answer_seconds), 99))


def capacity(load: Load, costs: UnitCosts, limits: Limits) -> Capacity:
    """Of one gateway; `load.rate` does not matter."""
    loop_s = load.loop_ms(costs) / 1000
    text_s = costs.embedding.each_ms / 1000
    local = load.embedder is Embedder.LOCAL
    bounds = {"event loop": limits.utilisation / max(loop_s, 1e-9)}
    if local:
        bounds["embedder"] = limits.utilisation / max(text_s, 1e-9)
    # Half of the room, and room for chance: mean and three standard deviations of a Poisson number.
    room = limits.open_requests / 2 / load.burst
    bounds["open streams"] = (math.sqrt(room + 2.25) - 1.5) ** 2 / load.answer_seconds
    name = min(bounds, key=bounds.__getitem__)
    top = bounds[name]
    found = most(lambda r: time_to_model(r, load, costs) * 1000 <= limits.p99_ms, top)
    if found == 0:
        raise ConfigurationError("p99_ms: one request alone takes longer than that")
    return Capacity(
        rate=found,
        bound=name if found == top else "p99",
        p99_ms=time_to_model(found, load, costs) * 1000,
        loop=found * loop_s,
        embedder=found * text_s if local else 0.0,
    )


def smallest(
    rate: float, length: float, limit: float, wait: float, load: Load, *, slots: float = 1.0
) -> tuple[int, float]:
    """The fewest servers of `slots` places each for jobs of mean `length` seconds, with
    utilisation at most `limit` and 99 % of the waits at most `wait` seconds; and that wait."""
    if rate * length == 0:
        return 0, 0.0
    count = max(1, math.ceil(rate * length / limit / slots))
    while True:
        rng = np.random.default_rng(load.seed)
        places = max(1, round(count * slots))
        # Long against a job, yet not more arrivals than are soon counted through.
        seconds = min(max(60.0, 50 * length), _ENOUGH / rate)
        times = arrivals(rate, seconds, rng, load.burst)
        lengths = services(length, len(times), load.spread, rng)
        waited = waits(times, lengths, places) if len(times) else np.zeros(1)
        found = float(np.percentile(waited, 99))
        if found <= wait:
            return count, found
        count += max(1, count // 10)


def per_request(load: Load, costs: UnitCosts, name: str) -> float:
    """One field of `StoreCosts` for a request with its share of learning."""
    request, queued, learned = (
        float(getattr(part, name)) for part in (costs.request, costs.queued, load.job(costs).store)
    )
    return (1 - load.sample_rate) * request + load.sample_rate * (queued + learned)


def database(load: Load, costs: UnitCosts, followers: float) -> tuple[float, float, float]:
    """Transactions a second, those of them in which `followers` look for events that they were
    told of, and seconds of CPU a second."""
    events = load.jobs * load.job(costs).event_writes
    looks = followers * min(events, LOOKS)
    look_ms = costs.idle.cpu_ms / max(costs.idle.transactions, 1e-9)
    transactions = (
        load.rate * per_request(load, costs, "transactions")
        + followers * costs.idle.transactions
        + looks
    )
    cpu_ms = (
        load.rate * per_request(load, costs, "cpu_ms")
        + followers * costs.idle.cpu_ms
        + looks * look_ms
    )
    return transactions, looks, cpu_ms / 1000


def plan(load: Load, costs: UnitCosts, limits: Limits, one: Capacity | None = None) -> Plan:
    """`one`: a gateway's capacity where it is known."""
    one = one or capacity(load, costs, limits)
    gateways = math.ceil(load.rate / one.rate)
    job = load.job(costs)
    jobs = load.jobs
    worker_limit = limits.utilisation / max(job.worker_ms / 1000, 1e-9)
    # A job takes its calls in turn; how many calls a worker has open at a time bounds its jobs.
    workers, waited = smallest(
        jobs,
        load.job_seconds(costs),
        limits.utilisation,
        limits.job_p99_s,
        load,
        slots=limits.call_concurrency,
    )
    workers = max(workers, math.ceil(jobs / worker_limit))

    followers = gateways + workers
    transactions, looks, cpu_s = database(load, costs, followers)
    cores, _ = smallest(transactions, cpu_s / transactions, limits.utilisation, 0.05, load)
    lock = jobs * job.event_writes * job.lock_ms / 1000
    wal = load.rate * per_request(load, costs, "wal_bytes") / 1e6
    connections = followers * CONNECTIONS
    samples = jobs * job.samples
    written = samples * load.answer_tokens + jobs * job.other_tokens
    return Plan(
        gateways=gateways,
        capacity=one,
        embedding_cores=load.rate * costs.embedding.each_ms / 1000 / limits.utilisation,
        gateway_cores=load.rate * load.loop_ms(costs) / 1000,
        open_streams=load.rate * load.answer_seconds,
        gateway_mib=costs.gateway.started_mib
        + load.namespaces * load.rules * costs.gateway.rule_kib / 1024
        + load.rate / gateways * load.answer_seconds * costs.gateway.stream_kib / 1024,
        index_mib=load.rules * costs.gateway.rule_kib / 1024,
        transactions=transactions,
        rows=load.rate * per_request(load, costs, "rows"),
        wal_mb=wal,
        growth_gb=load.rate * per_request(load, costs, "kept_bytes") * DAY / 1e9,
        database_cores=cores,
        databases=max(
            math.ceil(cores / limits.database_cores),
            math.ceil(lock / limits.utilisation),
            math.ceil(wal / limits.wal_mb),
            math.ceil(connections / limits.connections),
        ),
        connections=connections,
        event_lock=lock,
        looks=looks,
        jobs=jobs,
        workers=workers,
        job_p99_s=waited,
        calls=jobs * job.calls,
        learning_tokens=written + jobs * job.prompt_tokens,
        token_share=written / (written + load.rate * load.answer_tokens),
        calls_per_hour=jobs * job.calls * 3600 / load.namespaces,
    )


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The rate of the whole service, in requests a second, at which one piece is full."""

    rate: float
    what: str
    then: str


def ceilings(load: Load, costs: UnitCosts, limits: Limits, one: Capacity) -> list[Ceiling]:
    """Lowest first; `load.rate` does not matter, the sampling rate does."""
    job, share, full = load.job(costs), load.sample_rate, limits.utilisation
    local, remote = (
        capacity(load.model_copy(update={"embedder": each}), costs, limits)
        for each in (Embedder.LOCAL, Embedder.SERVER)
    )

    def database_fits(rate: float) -> bool:
        at = load.model_copy(update={"rate": rate})
        workers = at.jobs * load.job_seconds(costs) / full / limits.call_concurrency
        _, _, cores = database(at, costs, math.ceil(rate / one.rate) + math.ceil(workers))
        return cores <= full * limits.database_cores

    def until(limit: float, each: float) -> float:
        """Requests a second that share `limit`; infinite where none of it is taken."""
        return limit / each if each else math.inf

    group = "a PostgreSQL for each group of tenants"
    found = [
        Ceiling(
            local.rate,
            f"one gateway, local embedder ({local.bound})",
            "more gateways; several tokens a chunk where the loop is full, an embedding server "
            "where the embedder is",
        ),
        Ceiling(remote.rate, f"one gateway, embedding server ({remote.bound})", "more gateways"),
        Ceiling(
            limits.open_requests / 2 / load.answer_seconds,
            "TTCL_MAX_OPEN_REQUESTS of one gateway: half of it, learning stops",
            "a larger value, or more gateways",
        ),
        Ceiling(
            full * 1000 / costs.gateway.sqlite_ms,
            "a gateway on SQLite that has one core",
            "PostgreSQL, then several gateways",
        ),
        Ceiling(
            SHIPPED_CONNECTIONS / CONNECTIONS * one.rate,
            f"max_connections = {SHIPPED_CONNECTIONS} of PostgreSQL",
            f"a larger value; {group}",
        ),
        Ceiling(
            most(database_fits, MOST, steps=20),
            f"one PostgreSQL of {limits.database_cores:.0f} cores",
            f"exposures in batches, fewer looks for events; {group}",
        ),
        Ceiling(
            until(limits.wal_mb * 1e6, per_request(load, costs, "wal_bytes")),
            f"{limits.wal_mb:.0f} MB of write-ahead log a second",
            f"traces kept shorter or elsewhere; {group}",
        ),
        Ceiling(
            until(SHIPPED_CALLS, share * load.job_seconds(costs)),
            f"one worker as shipped, {SHIPPED_CALLS} calls at a time",
            "TTCL_LEARN_CALL_CONCURRENCY, more workers, a lower sampling rate",
        ),
        Ceiling(
            until(SHIPPED_BUDGET / 3600 * load.namespaces, share * job.calls),
            f"TTCL_LEARN_CALLS_PER_HOUR of {load.namespaces} namespaces",
            "a lower sampling rate: what is over it makes jobs that are skipped",
        ),
        Ceiling(
            until(full * 1000, share * job.event_writes * job.lock_ms),
            "the event log's one lock",
            "a lower sampling rate; a lock and a log for each namespace or group",
        ),
    ]
    return sorted((each for each in found if each.rate < math.inf), key=lambda each: each.rate)
