"""Takes this machine's unit costs of a gateway and its embedder, against an instant model server.
CPU time is read, not the clock: a busy machine hardly changes it. Linux only."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.exceptions import ConfigurationError
from app.upstream.embeddings import local_embedder
from benchmarks.model_server import Instant
from benchmarks.scaling.costs import EmbeddingCosts, UnitCosts
from benchmarks.serving.contents import Contents, write
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client, gateway, memory, scripted_upstream

CHUNKS = 200
CLIENTS = 6
RULES = 200
TEXTS = 8
"""Texts of a batch, as the gateway's own embedder makes them."""
_NUMBERS = itertools.count(1)
"""Of questions: no two are the same, so that none is answered from a cache."""


def measured(base: UnitCosts, requests: int, database_url: str | None) -> UnitCosts:
    """`base` with what was measured here, `requests` of each kind. On SQLite without a database;
    memory of streams and rules and what PostgreSQL and learning take stay as they are."""
    settings = {"LEARN": "false"} | ({"DATABASE_URL": database_url} if database_url else {})
    with (
        scripted_upstream("--pause", "0.002") as model,
        tempfile.TemporaryDirectory() as folder,
        gateway(model, Path(folder), **settings) as (port, pid),
    ):
        started = memory(pid)["resident"]
        write(port, Contents(RULES))

        def cost(clock: Callable[[], float], **kind: Any) -> float:
            """Milliseconds of one request, after some to warm up."""
            _ask(port, 50, **kind)
            before = clock()
            _ask(port, requests, **kind)
            return (clock() - before) * 1000 / requests

        def every_thread() -> float:
            return _cpu(pid)

        def loop() -> float:  # a gateway's main thread
            return _cpu(pid, pid)

        short, long = (cost(loop, pieces=count) for count in (2, CHUNKS + 2))
        chunk_ms = (long - short) / CHUNKS
        found = {
            "started_mib": started,
            "off_ms": cost(every_thread, mode="off"),
            "loop_ms": cost(loop),
            "stream_ms": max(0.0, short - 3 * chunk_ms),
            "chunk_ms": max(0.0, chunk_ms),
        }
        if not database_url:
            found["sqlite_ms"] = cost(every_thread)
    here = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return base.model_copy(
        update={
            "machine": f"gateway and embedder: {here}; all else: {base.machine}",
            "gateway": base.gateway.model_copy(update=found),
            "embedding": asyncio.run(_embedding()),
        }
    )


def _ask(port: int, count: int, *, mode: str = "steer", pieces: int = 0) -> None:
    """Requests of `CLIENTS` clients, every question new; streamed where they have `pieces`."""
    headers = {**Contents(RULES).headers, "X-TTCL-Mode": mode}
    more: dict[str, Any] = {"stream": True, "pieces": pieces} if pieces else {}

    def client(share: int) -> None:
        connection = Client(port)
        for _ in range(share):
            text = question(next(_NUMBERS))
            messages = [{"role": "user", "content": text}]
            body = {"model": Instant.model, "messages": messages, **more}
            status, _, content = connection.send("POST", "/v1/chat/completions", body, headers)
            if status != 200:
                raise ConfigurationError(f"answered with {status}: {content[:200]!r}")
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, [len(range(at, count, CLIENTS)) for at in range(CLIENTS)]))


def _cpu(pid: int, thread: int | None = None) -> float:
    """Seconds of CPU that a process, or one of its threads, has had; in steps of a tick (10 ms)."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    fields = Path(path).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _embedding() -> EmbeddingCosts:
    """The line through the CPU times of batches of one and of `TEXTS`, on one thread."""
    embedder = local_embedder(None)
    embedder.start()
    while not embedder.ready:
        await asyncio.sleep(0.05)
        if embedder.failure:
            raise ConfigurationError(embedder.failure)
    taken = []
    for size in (1, TEXTS):
        for rounds in (5, 60):  # the first ones warm it up
            before = time.process_time()
            for _ in range(rounds):
                await embedder.embed([question(-next(_NUMBERS)) for _ in range(size)])
        taken.append((time.process_time() - before) * 1000 / rounds)
    await embedder.close()
    text = (taken[1] - taken[0]) / (TEXTS - 1)
    return EmbeddingCosts(fixed_ms=max(0.0, taken[0] - text), text_ms=max(0.0, text), batch=TEXTS)
