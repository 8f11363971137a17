"""What a learning job costs: a gateway that queues, a worker that learns, both on PostgreSQL."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from app.exceptions import ConfigurationError
from benchmarks.scaling.costs import IdleCosts, JobCosts, StoreCosts
from benchmarks.scaling.processes import FamilyCpu, quiet, running
from benchmarks.scaling.server import database, query
from benchmarks.scaling.store import Usage, counts, kept_bytes, lock_holds, log_statements
from benchmarks.scaling.traffic import ask
from benchmarks.serving.processes import gateway

LONGEST = 120.0
"""Seconds for all jobs of a part."""


def learning_costs(
    policy: str,
    model: int,
    address: str,
    server: int,
    log: Path,
    jobs: int,
    students: int,
    idle: IdleCosts,
    request: StoreCosts,
) -> JobCosts:
    """`jobs` at their ordinary cost, and a third of them more with all statements logged, to see
    how long the event log is locked. `request`: what the request that makes a job costs, which is
    taken off."""
    with database(address) as url, tempfile.TemporaryDirectory() as folder:
        settings = {
            "DATABASE_URL": url,
            "POLICY": policy,
            "STUDENTS": str(students),
            "LEARN_CALLS_PER_HOUR": "1000000",
            "LEARN_TOKENS_PER_HOUR": "1000000000",
        }
        working = {
            **settings,
            "UPSTREAM_BASE_URL": f"http://127.0.0.1:{model}/v1",
            "DATA_DIR": folder,
            "LEARN_CONCURRENCY": "4",
            "LEARN_CALL_CONCURRENCY": "16",
        }
        with (
            tempfile.TemporaryDirectory() as own,
            gateway(model, Path(own), LEARN_CONCURRENCY="0", **settings) as served,
            running(["-m", "app.cli", "worker"], working) as worker,
        ):
            port = served[0]
            ask(port, 2, learn=True, namespace="learning")
            quiet(worker)
            usage = Usage(url, server)
            usage.settle()
            asked, kept = Counter(counts(model)), kept_bytes(url)
            usage.begin()
            spent = FamilyCpu(worker)
            ask(port, jobs, learn=True, namespace="learning")
            _all_done(url, model)
            worker_ms = spent.since() * 1000 / jobs
            stored = usage.end(jobs, idle, processes=2)
            rules = query(url, "SELECT count(*) FROM rules")[0][0]
            made = Counter(counts(model)) - asked
            grown = (kept_bytes(url) - kept) / jobs
            more = max(8, jobs // 3)
            log_statements(url, True)
            start = log.stat().st_size
            ask(port, more, learn=True, namespace="learning")
            _all_done(url, model)
            log_statements(url, False)
            holds = lock_holds(log, start)
    samples = made["sample"] / jobs
    return JobCosts(
        calls=(made["calls"] - made["client"]) / jobs,
        samples=samples,
        prompt_tokens=(made["prompt_tokens"] - made["client_prompt"]) / jobs,
        other_tokens=(made["tutor_tokens"] + made["distiller_tokens"]) / jobs,
        rules=rules / jobs,
        worker_ms=worker_ms,
        event_writes=len(holds) / more,
        lock_ms=float(np.median(holds)) * 1000 if holds else 0.0,
        store=StoreCosts(
            transactions=max(0.0, stored.transactions - request.transactions),
            rows=max(0.0, stored.rows - request.rows),
            wal_bytes=max(0.0, stored.wal_bytes - request.wal_bytes),
            kept_bytes=max(0.0, grown - request.kept_bytes),
            cpu_ms=max(0.0, stored.cpu_ms - request.cpu_ms),
        ),
    )


def _all_done(url: str, model: int) -> None:
    """Until no job waits and the model has not been asked for a while: replays come last."""
    deadline = time.monotonic() + LONGEST
    before = -1
    while time.monotonic() < deadline:
        open_ = query(url, "SELECT count(*) FROM jobs WHERE state IN ('pending', 'running')")
        asked = counts(model).get("calls", 0)
        if open_[0][0] == 0 and asked == before:
            return
        before = asked
        time.sleep(3.0)
    raise ConfigurationError(f"learning was not done within {LONGEST:.0f} s")
