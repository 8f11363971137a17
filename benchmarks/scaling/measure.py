"""Takes the unit costs, in a few minutes, against a scripted model server and a throw-away
PostgreSQL. CPU time is read, not the clock: a busy machine hardly changes it."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from app.exceptions import ConfigurationError
from app.upstream.embeddings import local_embedder
from benchmarks.scaling.costs import EmbeddingCosts, GatewayCosts, IdleCosts, StoreCosts, UnitCosts
from benchmarks.scaling.learning import learning_costs
from benchmarks.scaling.processes import cpu, loop_cpu, model_server
from benchmarks.scaling.server import database, postgres, query
from benchmarks.scaling.store import Usage, kept_bytes
from benchmarks.scaling.traffic import NUMBERS, RULES, ask
from benchmarks.serving.latency import load_rules
from benchmarks.serving.material import question, rule
from benchmarks.serving.processes import gateway, memory
from rules_store.index.rule_index import RuleIndex, unit
from rules_store.models.rules import IndexRow, Polarity, RuleState

CHUNKS = 200
OPEN = 150
"""Streams held open at once to see what one takes."""
IDLE = 20.0
"""Seconds in which nobody asks."""
STUDENTS = 4
TEXTS = 8
"""Texts of a batch, as the gateway's own embedder makes them."""

out = Console(stderr=True, highlight=False)


def measure(requests: int, jobs: int) -> UnitCosts:
    """`requests`: of each kind; `jobs`: learning jobs of each policy."""
    out.print("embeddings and the index")
    # The index first: the model would leave memory behind that the index then takes unseen.
    rule_kib, embedding = index_memory(), embedding_costs()
    with model_server() as model:
        out.print("a gateway on SQLite")
        sqlite_ms = _on_sqlite(model, requests)
        with postgres("track_wal_io_timing=on") as (address, pid, log):
            out.print("a gateway on PostgreSQL: off, steer, streams, rows")
            parts = _on_postgresql(model, address, pid, requests)
            bare = parts.pop("bare")
            learned = {}
            for policy in ("gated", "paper"):
                out.print(f"learning, {policy}")
                learned[policy] = learning_costs(
                    policy, model, address, pid, log, jobs, STUDENTS, parts["idle"], bare
                )
    seen = parts.pop("gateway")
    return UnitCosts(
        machine=f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        gateway=GatewayCosts(sqlite_ms=sqlite_ms, rule_kib=rule_kib, **seen),
        embedding=embedding,
        students=STUDENTS,
        **parts,
        **learned,
    )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def embedding_costs() -> EmbeddingCosts:
    """The line through the CPU times of batches of one and of `TEXTS`, on one thread."""
    embedder = local_embedder(None)

    async def run() -> list[float]:
        embedder.start()
        while not embedder.ready:
            await asyncio.sleep(0.05)
            if embedder.failure:
                raise ConfigurationError(embedder.failure)
        taken = []
        for size in (1, TEXTS):
            for _ in range(5):
                await embedder.embed([question(-next(NUMBERS)) for _ in range(size)])
            before = time.process_time()
            for _ in range(60):
                await embedder.embed([question(-next(NUMBERS)) for _ in range(size)])
            taken.append((time.process_time() - before) * 1000 / 60)
        await embedder.close()
        return taken

    single, batch = asyncio.run(run())
    text = (batch - single) / (TEXTS - 1)
    return EmbeddingCosts(fixed_ms=max(0.0, single - text), text_ms=text, batch=TEXTS)


def index_memory(rules: int = 40_000, dimension: int = 384) -> float:
    """KiB that an indexed rule of text and trigger takes, of many; vectors at random."""
    dice = np.random.default_rng(1)
    index = RuleIndex(dimension)
    gc.collect()
    before = memory(os.getpid())["resident"]
    for start in range(0, rules, 1000):
        vectors = dice.normal(size=(2, 1000, dimension))
        index.extend(
            IndexRow(
                seq=start + n + 1,
                id=f"rule_{start + n:024x}",
                # A capacity of 1,000 rules a namespace: no shelf grows large.
                namespace=f"team-{start // 1000}",
                polarity=(Polarity.POSITIVE, Polarity.NEGATIVE)[n % 2],
                state=RuleState.ACTIVE,
                text=rule(start + n)[0],
                trigger=rule(start + n)[1],
                text_vector=unit(vectors[0, n], dimension),
                trigger_vector=unit(vectors[1, n], dimension),
            )
            for n in range(1000)
        )
    gc.collect()
    return (memory(os.getpid())["resident"] - before) * 1024 / rules


def _on_sqlite(model: int, requests: int) -> float:
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(model, Path(folder), LEARN="false") as (port, pid),
    ):
        load_rules(port, RULES)
        ask(port, 50)
        before = cpu(pid)
        ask(port, requests)
        return (cpu(pid) - before) * 1000 / requests


def _on_postgresql(model: int, address: str, server: int, requests: int) -> dict[str, Any]:
    more = {"LEARN_CONCURRENCY": "0", "MAX_OPEN_REQUESTS": "4000"}
    with (
        database(address) as url,
        tempfile.TemporaryDirectory() as folder,
        gateway(model, Path(folder), DATABASE_URL=url, **more) as (port, pid),
    ):
        started = memory(pid)["resident"]
        load_rules(port, RULES)
        ask(port, 50)
        ask(port, 50, mode="off")
        off_ms = _cost(lambda: ask(port, requests, mode="off"), lambda: cpu(pid), requests)
        short, long = (
            _cost(partial(ask, port, requests, stream=n), lambda: loop_cpu(pid), requests)
            for n in (2, CHUNKS + 2)
        )
        chunk_ms = (long - short) / CHUNKS
        loop_ms = _cost(partial(ask, port, requests), lambda: loop_cpu(pid), requests)
        stream_kib = _open_streams(port, pid)
        usage = Usage(url, server)
        usage.settle()
        usage.begin()
        time.sleep(IDLE)
        nothing = usage.end(1)
        idle = IdleCosts(
            transactions=nothing.transactions / usage.seconds, cpu_ms=nothing.cpu_ms / usage.seconds
        )
        plain = _stored(port, usage, url, requests, idle)
        queued = _stored(port, usage, url, requests, idle, learn=True)
        bare = _stored(port, usage, url, requests, idle, learn=True, namespace="bare")
        synced, spent = query(url, "SELECT wal_sync, wal_sync_time FROM pg_stat_wal")[0]
    seen = {
        "off_ms": off_ms,
        "loop_ms": loop_ms,
        "stream_ms": max(0.0, short - 3 * chunk_ms),
        "chunk_ms": chunk_ms,
        "started_mib": started,
        "stream_kib": stream_kib,
    }
    fsync_ms = float(spent) / max(1, int(synced))
    return {
        "gateway": seen,
        "request": plain,
        "queued": queued,
        "bare": bare,
        "idle": idle,
        "fsync_ms": fsync_ms,
    }


def _stored(
    port: int, usage: Usage, url: str, requests: int, idle: IdleCosts, **kind: Any
) -> StoreCosts:
    before = kept_bytes(url)
    usage.begin()
    ask(port, requests, **kind)
    found = usage.end(requests, idle)
    return found.model_copy(update={"kept_bytes": max(0.0, kept_bytes(url) - before) / requests})


def _cost(work: Callable[[], None], clock: Callable[[], float], count: int) -> float:
    before = clock()
    work()
    return (clock() - before) * 1000 / count


def _open_streams(port: int, pid: int) -> float:
    before = memory(pid)["resident"]
    threads = [
        threading.Thread(target=ask, args=(port, 1), kwargs={"stream": 8, "pause": 1.0})
        for _ in range(OPEN)
    ]
    for thread in threads:
        thread.start()
    time.sleep(6)
    used = memory(pid)["resident"] - before
    for thread in threads:
        thread.join()
    return max(0.0, used * 1024 / OPEN)
