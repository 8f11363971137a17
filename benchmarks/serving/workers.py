"""Requests a second through one gateway process and through several behind one port.

    python -m benchmarks.serving.workers --database postgresql://... --workers 1,2

The database must be empty. Each number of processes has a service of its own on it; they take turns
in short slices, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.serving.asking import Kind, pressure
from benchmarks.serving.contents import Contents, write
from benchmarks.serving.processes import Client, gateway, scripted_upstream

CONTENTS = Contents(100)
KINDS = ("off", "steer, known questions", "steer, new questions")
RECURRING = 200
"""Questions that come again."""
out = Console(highlight=False, width=max(100, Console().width))


def main(
    database: Annotated[str, typer.Option(help="postgresql:// URL of an empty database")],
    workers: Annotated[str, typer.Option(help="Numbers of processes, comma-separated")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Slices of each")] = 4,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of a slice")] = 3.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once")] = 8,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Compare numbers of gateway processes."""
    counts = [int(part) for part in workers.split(",")]
    with ExitStack() as stack:
        upstream = stack.enter_context(scripted_upstream())
        ports = {}
        for count in counts:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = {"LEARN": "false", "DATABASE_URL": database, "WORKERS": str(count)}
            ports[count], _ = stack.enter_context(gateway(upstream, folder, **settings))
        write(ports[counts[0]], CONTENTS)
        rates = _measure(upstream, ports, rounds, seconds, clients)
    table = Table("processes", *KINDS)
    for count in counts:
        table.add_row(str(count), *(f"{rates[f'{count} {kind}']:.0f}" for kind in KINDS))
    out.print(f"bare: {rates['bare']:.0f} a second, {clients} clients", table)
    if result is not None:
        result.write_bytes(orjson.dumps(rates, option=orjson.OPT_INDENT_2) + b"\n")


def _measure(
    upstream: int, ports: dict[int, int], rounds: int, seconds: float, clients: int
) -> dict[str, float]:
    kinds = [Kind("bare", Client(upstream), {})]
    for count, port in ports.items():
        headers = ({"X-TTCL-Mode": "off"}, CONTENTS.headers, CONTENTS.headers)
        kinds += [
            Kind(f"{count} {name}", Client(port), sent)
            for name, sent in zip(KINDS, headers, strict=True)
        ]
    rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    fresh = 0
    for _ in track(range(rounds), description="slices", console=out):
        for kind in kinds:
            fresh += 1
            new = "new" in kind.name
            rate = pressure(
                kind,
                clients,
                seconds,
                start=fresh * 10_000_000 if new else 0,
                among=None if new else RECURRING,
            )
            rates[kind.name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


if __name__ == "__main__":
    typer.run(main)
