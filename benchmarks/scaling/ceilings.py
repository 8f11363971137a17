"""Where a deployment gives out: the rate at which each single piece is full, and what then."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.scaling.costs import UnitCosts
from benchmarks.scaling.demand import Embedder, Limits, Load
from benchmarks.scaling.plan import CONNECTIONS, Capacity, capacity, database, most

SHIPPED_CALLS = 2
"""TTCL_LEARN_CALL_CONCURRENCY as shipped."""
SHIPPED_BUDGET = 2000
"""TTCL_LEARN_CALLS_PER_HOUR as shipped, of a namespace."""
SHIPPED_CONNECTIONS = 100
"""max_connections of PostgreSQL as shipped."""

MOST = 1e6
"""Requests a second beyond which nothing is looked for."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    rate: float
    """Requests a second of the whole service."""
    what: str
    then: str


def ceilings(load: Load, costs: UnitCosts, limits: Limits, one: Capacity) -> list[Ceiling]:
    """Lowest first; `load.rate` does not matter, the sampling rate does."""
    job = load.job(costs)
    share, full = load.sample_rate, limits.utilisation
    wal = (1 - share) * costs.request.wal_bytes + share * (
        costs.queued.wal_bytes + job.store.wal_bytes
    )
    local = capacity(load.model_copy(update={"embedder": Embedder.LOCAL}), costs, limits)
    remote = capacity(load.model_copy(update={"embedder": Embedder.SERVER}), costs, limits)

    def database_fits(rate: float) -> bool:
        at = load.model_copy(update={"rate": rate})
        workers = at.jobs * load.job_seconds(costs) / full / limits.call_concurrency
        _, _, cores = database(at, costs, math.ceil(rate / one.rate) + math.ceil(workers))
        return cores <= full * limits.database_cores

    found = [
        (
            local.rate,
            f"one gateway, local embedder ({local.bound})",
            "more gateways; several tokens a chunk where the loop is full, an embedding server "
            "where the embedder is",
        ),
        (remote.rate, f"one gateway, embedding server ({remote.bound})", "more gateways"),
        (
            limits.open_requests / 2 / load.answer_seconds,
            "TTCL_MAX_OPEN_REQUESTS of one gateway: half of it, learning stops",
            "a larger value, or more gateways",
        ),
        (
            full * 1000 / costs.gateway.sqlite_ms,
            "a gateway on SQLite that has one core",
            "PostgreSQL, then several gateways",
        ),
        (
            SHIPPED_CONNECTIONS / CONNECTIONS * one.rate,
            f"max_connections = {SHIPPED_CONNECTIONS} of PostgreSQL",
            "a larger value; a PostgreSQL for each group of tenants",
        ),
        (
            most(database_fits, MOST, steps=20),
            f"one PostgreSQL of {limits.database_cores:.0f} cores",
            "exposures in batches, fewer looks for events; a PostgreSQL for each group of tenants",
        ),
        (
            limits.wal_mb * 1e6 / wal,
            f"{limits.wal_mb:.0f} MB of write-ahead log a second",
            "traces kept shorter or elsewhere; a PostgreSQL for each group of tenants",
        ),
    ]
    if share:
        found += [
            (
                SHIPPED_CALLS / load.job_seconds(costs) / share,
                f"one worker as shipped, {SHIPPED_CALLS} calls at a time",
                "TTCL_LEARN_CALL_CONCURRENCY, more workers, a lower sampling rate",
            ),
            (
                SHIPPED_BUDGET / 3600 * load.namespaces / (share * job.calls),
                f"TTCL_LEARN_CALLS_PER_HOUR of {load.namespaces} namespaces",
                "a lower sampling rate: what is over it makes jobs that are skipped",
            ),
        ]
        if job.event_writes and job.lock_ms:
            found.append(
                (
                    full * 1000 / (share * job.event_writes * job.lock_ms),
                    "the event log's one lock",
                    "a lower sampling rate; a lock and a log for each namespace or group",
                )
            )
    return sorted((Ceiling(*each) for each in found), key=lambda each: each.rate)
