"""A short run, against the ratios that are checked in: what is worse by more than a fifth.

    make bench-check
    python -m benchmarks.serving.check --write        # this run's are the ones from now on

Everything is a ratio of two times of the same run: to the bare model server, to one embedding, to
the digest of a megabyte, to a start of Python with the same libraries. So a busy machine or another
one moves them far less than milliseconds, but does move them: run it twice before you believe it.
"""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving import first_token, latency
from benchmarks.serving.asking import Kind, pressure
from benchmarks.serving.contents import Contents
from benchmarks.serving.processes import Client, gateway, scripted_upstream

RATIOS = Path(__file__).with_name("ratios.json")
WORSE = 1.2
"""Times the checked-in ratio from which it is named."""
CONTENTS = Contents(100)
RECURRING = 200
"""Questions that come again."""
CLIENTS, SLICES, SECONDS = 8, 3, 1.0
LIBRARIES = "import aiohttp, faiss, fastapi, numpy, sqlalchemy.ext.asyncio, uvicorn"
out = Console(highlight=False, width=max(100, Console().width))


def main(
    requests: Annotated[int, typer.Option(min=10, help="Single requests of each kind")] = 80,
    keep: Annotated[bool, typer.Option("--write", help="Check this run's ratios in")] = False,
) -> None:
    """Compare a run with the checked-in ratios; exit code 1 where something is worse."""
    found = measure(requests)
    if keep:
        RATIOS.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    if not RATIOS.exists():
        raise typer.BadParameter(f"no {RATIOS.name} yet: write it on a quiet machine (--write)")
    known = orjson.loads(RATIOS.read_bytes())
    table = Table("ratio (less is better)", "checked in", "this run", "of it")
    for name, value in found.items():
        before = known.get(name)
        of_it = "" if before is None else f"{value / before:.2f}"
        table.add_row(name, "" if before is None else f"{before:.2f}", f"{value:.2f}", of_it)
    out.print(table)
    bad = worse(known, found)
    for name in bad:
        out.print(f"[red]worse[/red]: {name}, {found[name] / known[name]:.2f} times")
    raise typer.Exit(1 if bad else 0)


def worse(known: dict[str, float], found: dict[str, float]) -> list[str]:
    """Names of what takes more than `WORSE` times what it took."""
    return [name for name in found if name in known and found[name] > WORSE * known[name]]


def measure(requests: int) -> dict[str, float]:
    """Ratios by name; less is better."""
    with tempfile.TemporaryDirectory() as scratch, scripted_upstream("--pause", "0") as upstream:
        folder = Path(scratch)
        start = min(_start(upstream, folder) for _ in range(2))
        with gateway(upstream, folder, LEARN="false") as (port, pid):
            single = latency.measure(port, pid, upstream, [CONTENTS], requests, CLIENTS, 0.0)
            first = first_token.measure(upstream, port, CONTENTS, requests)
            seconds = _seconds_of_one(upstream, port)
    times, steer = single["times_ms"], f"steer, {CONTENTS}"
    embedding = times["embedding"]["median"]
    return {
        "off: time of one, to bare": times["off"]["ratio"],
        "off: seconds of processor and wire at 8 clients, to bare": seconds["off"]
        / seconds["bare"],
        "steer, new questions: added, in embeddings": times[steer]["embeddings"],
        "steer, new questions: seconds at 8 clients, in embeddings": 1000
        * seconds["new"]
        / embedding,
        "steer, known questions: seconds at 8 clients, to bare": seconds["known"] / seconds["bare"],
        "first token, off: to bare": first["off"]["ratio"],
        "first token, known question: to bare": first[first_token.KNOWN]["ratio"],
        "embedding: in digests of a megabyte": embedding / _digest(),
        "start: in starts of Python with its libraries": start,
        "memory: in hundreds of MiB": single["memory_mib"]["after"]["resident"] / 100,
    }


def _start(upstream: int, folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    libraries = time.perf_counter() - began
    began = time.perf_counter()
    with gateway(upstream, folder, LEARN="false"):
        return (time.perf_counter() - began) / libraries


def _seconds_of_one(upstream: int, port: int) -> dict[str, float]:
    """A request's share of the time of several clients, the median of slices in turn."""
    bare, client = Client(upstream), Client(port)
    kinds: dict[str, tuple[Kind, int | None]] = {
        "bare": (Kind("bare", bare, {}), None),
        "off": (Kind("off", client, {"X-TTCL-Mode": "off"}), None),
        "known": (Kind("known", client, CONTENTS.headers), RECURRING),
        "new": (Kind("new", client, CONTENTS.headers), None),
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(SLICES + 1):
        for name, (kind, among) in kinds.items():
            begun = 0 if among else (number + 1) * 10_000_000
            rate = pressure(kind, CLIENTS, SECONDS, start=begun, among=among)
            if number:  # the first slice warms up
                taken[name].append(1 / rate)
    return {name: statistics.median(found) for name, found in taken.items()}


def _digest() -> float:
    """Milliseconds for the digest of a megabyte, as a measure of the processor."""
    content, took = bytes(1_000_000), []
    for _ in range(50):
        began = time.perf_counter()
        hashlib.sha256(content).digest()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


if __name__ == "__main__":
    typer.run(main)
