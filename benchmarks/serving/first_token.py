"""Time to the first event of a stream, against the bare model server's.

    python -m benchmarks.serving.first_token --requests 200 --out first_token.json

Every round opens one stream of each kind, in random order, on one connection each: the bare model
server; off; steer, with a question that is known, and with one that must be embedded. The model
server sends its first event at once.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.exceptions import ConfigurationError
from benchmarks.model_server import Instant
from benchmarks.serving.asking import Kind
from benchmarks.serving.contents import Contents, write
from benchmarks.serving.latency import summarise
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client, gateway, scripted_upstream

CONTENTS = Contents(100)
KNOWN = "steer, known question"
WARM_UP = 20
out = Console(highlight=False, width=max(100, Console().width))


def main(
    requests: Annotated[int, typer.Option(min=10, help="Rounds that are measured")] = 200,
    database: Annotated[
        str | None, typer.Option(help="postgresql:// URL of an empty database; unset: SQLite")
    ] = None,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure the time to the first event of a stream."""
    settings = {"LEARN": "false", **({} if database is None else {"DATABASE_URL": database})}
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted_upstream("--pause", "0") as upstream_port,
        gateway(upstream_port, Path(folder), **settings) as (port, _),
    ):
        write(port, CONTENTS)
        rows = measure(upstream_port, port, CONTENTS, requests)
    table = Table("", "median ms", "p95 ms", "added ms", "x bare")
    for name, row in rows.items():
        added = row.get("added")
        table.add_row(
            name,
            f"{row['median']:.2f}",
            f"{row['p95']:.2f}",
            f"{added['median']:.2f} ({added['low']:.2f} to {added['high']:.2f})" if added else "",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
        )
    out.print(table)
    if result is not None:
        result.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


def measure(
    upstream_port: int, port: int, contents: Contents, requests: int
) -> dict[str, dict[str, Any]]:
    """By kind; see `latency.summarise`."""
    kinds = [
        Kind("bare", Client(upstream_port), {}),
        Kind("off", Client(port), {"X-TTCL-Mode": "off"}),
        Kind(KNOWN, Client(port), contents.headers),
        Kind("steer, new question", Client(port), contents.headers),
    ]
    samples: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    rng = random.Random(1)
    for number in track(range(WARM_UP + requests), description="streams", console=out):
        rng.shuffle(kinds)
        for kind in kinds:
            text = question(7 if kind.name == KNOWN else 50_000_000 + number)
            took = _first_event(kind, text)
            if number >= WARM_UP:
                samples[kind.name].append(took)
    for kind in kinds:
        kind.client.close()
    return summarise(samples, ())


def _first_event(kind: Kind, text: str) -> float:
    """Milliseconds. Raises `ConfigurationError`."""
    body = {
        "model": Instant.model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "pieces": 3,
    }
    started = time.perf_counter()
    status, first = kind.client.stream("/v1/chat/completions", body, kind.headers)
    took = (first - started) * 1000
    if status != 200:
        raise ConfigurationError(f"{kind.name} was answered with {status}")
    return took


if __name__ == "__main__":
    typer.run(main)
