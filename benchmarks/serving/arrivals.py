"""Requests that arrive at a fixed rate, whether or not earlier ones have been answered.

    python -m benchmarks.serving.arrivals --rate 100 --seconds 30 --out arrivals.json

The time of a request counts from the moment it was due, so that a gateway that falls behind shows
it. Kinds: the bare model server; off; steer, with questions that come again (their embeddings are
cached, as those of a busy service's are in part); and steer with new questions only, each of which
must be embedded, at a rate of its own: one core embeds some eighty a second. Arrivals are random
(Poisson).

Client and model server keep to one core and the gateway to the others, as it has its own where it
serves; with `--together` all share all cores, and the gateway also waits for those two.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import numpy as np
import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.exceptions import ConfigurationError
from benchmarks.model_server import Instant
from benchmarks.serving.contents import Contents, write
from benchmarks.serving.material import question
from benchmarks.serving.processes import divided_cores, gateway, on_cores, scripted_upstream

CONTENTS = Contents(100)
RECURRING = 200
"""Questions that come again."""
LIMIT = 3.0
"""Times the median that the 99th percentile may take."""
out = Console(highlight=False, width=max(100, Console().width))


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    port: int
    headers: dict[str, str]
    rate: float
    recurring: bool = True


def main(
    rate: Annotated[float, typer.Option(min=1, help="Requests a second")] = 100.0,
    new_rate: Annotated[float, typer.Option(min=1, help="The same, of new questions")] = 20.0,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each kind")] = 30.0,
    together: Annotated[bool, typer.Option("--together", help="Share all cores")] = False,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure percentiles at a fixed rate of requests."""
    ends, middle = (set(), set()) if together else divided_cores()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(on_cores(ends))
        upstream_port = stack.enter_context(scripted_upstream())
        with on_cores(middle):
            port, _ = stack.enter_context(gateway(upstream_port, Path(folder), LEARN="false"))
        write(port, CONTENTS)
        steer = CONTENTS.headers
        kinds = [
            Kind("bare", upstream_port, {}, rate),
            Kind("off", port, {"X-TTCL-Mode": "off"}, rate),
            Kind("steer, recurring questions", port, steer, rate),
            Kind("steer, new questions", port, steer, new_rate, recurring=False),
        ]
        rows = [asyncio.run(_measure(kind, seconds)) for kind in kinds]
    _show(rows)
    if result is not None:
        result.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


async def _measure(kind: Kind, seconds: float) -> dict[str, Any]:
    rng = random.Random(1)
    due, at = [], 0.0
    while (at := at + rng.expovariate(kind.rate)) < seconds:
        due.append(at)
    took: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for number in range(RECURRING if kind.recurring else 10):
            # Also what is known before: connections, embeddings, code that has run once.
            await _ask(session, kind, question(number))
        start = time.perf_counter()
        tasks = []
        for number, moment in enumerate(track(due, description=kind.name, console=out)):
            await asyncio.sleep(max(0.0, start + moment - time.perf_counter()))
            text = question(number % RECURRING if kind.recurring else 1_000_000 + number)
            tasks.append(asyncio.create_task(_timed(session, kind, text, start + moment, took)))
        await asyncio.gather(*tasks)
    times = np.array(took)
    median, p99 = float(np.median(times)), float(np.percentile(times, 99))
    return {
        "kind": kind.name,
        "rate": kind.rate,
        "requests": len(times),
        "median_ms": median,
        "p95_ms": float(np.percentile(times, 95)),
        "p99_ms": p99,
        "p99_over_median": p99 / median,
    }


async def _timed(
    session: aiohttp.ClientSession, kind: Kind, text: str, due: float, took: list[float]
) -> None:
    await _ask(session, kind, text)
    took.append((time.perf_counter() - due) * 1000)


async def _ask(session: aiohttp.ClientSession, kind: Kind, text: str) -> None:
    url = f"http://127.0.0.1:{kind.port}/v1/chat/completions"
    body = {"model": Instant.model, "messages": [{"role": "user", "content": text}]}
    async with session.post(url, json=body, headers=kind.headers) as response:
        content = await response.read()
        if response.status != 200:
            raise ConfigurationError(
                f"{kind.name} was answered with {response.status}: {content!r}"
            )
        if "X-TTCL-Degraded" in response.headers:
            raise ConfigurationError(f"{kind.name}: {response.headers['X-TTCL-Degraded']}")


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("kind", "a second", "requests", "median ms", "p95 ms", "p99 ms", "p99 / median")
    for row in rows:
        ratio = row["p99_over_median"]
        over = ratio > LIMIT and row["kind"] != "bare"
        table.add_row(
            row["kind"],
            f"{row['rate']:g}",
            str(row["requests"]),
            f"{row['median_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"[red]{ratio:.1f}[/red]" if over else f"{ratio:.1f}",
        )
    out.print(table)
    out.print(f"limit of p99 / median: {LIMIT:g}")


if __name__ == "__main__":
    typer.run(main)
