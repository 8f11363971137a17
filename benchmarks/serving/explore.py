"""What exploring in the client's path costs, in calls of the model that it waits for.

    python -m benchmarks.serving.explore --out explore.json

A scripted model server takes a fixed time for every call: any number side by side, as a server that
batches does, or one after the other. Its answers all agree, so that the first two settle the
question, or hardly two do, so that everybody is asked. Times are those of whole answers.

Not covered: a batching server that slows down with every call in its batch.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.serving.asking import Kind, ask
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client, gateway, scripted_upstream

LIMITS = {("batching", "agree"): 1.3, ("serial", "agree"): 2.2}
"""Calls that an exploration may take as long as."""
out = Console(highlight=False, width=max(100, Console().width))


def main(
    requests: Annotated[int, typer.Option(min=3, help="Requests of each kind")] = 15,
    delay: Annotated[float, typer.Option(min=0.01, help="Seconds of one call")] = 0.5,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure explore mode against one call."""
    rows = []
    for server in ("batching", "serial"):
        for answers in ("agree", "scatter"):
            options = ["--delay", str(delay)]
            options += ["--serial"] * (server == "serial") + ["--scatter"] * (answers == "scatter")
            rows.append({"server": server, "answers": answers, **_measure(options, requests)})
    _show(rows, delay)
    if result is not None:
        result.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


def _measure(options: list[str], requests: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted_upstream(*options) as upstream_port,
        # Learning would be at the model while the next request waits for it.
        gateway(upstream_port, Path(folder), LEARN="false") as (port, _),
    ):
        one = Kind("one call", Client(port), {"X-TTCL-Mode": "off"})
        explore = Kind("explore", Client(port), {"X-TTCL-Mode": "explore"})
        times: dict[str, list[float]] = {one.name: [], explore.name: []}
        for number in track(range(requests), description=" ".join(options), console=out):
            for kind in (one, explore):
                times[kind.name].append(ask(kind, question(number)).milliseconds)
    call, explored = (statistics.median(values) for values in times.values())
    return {"call_ms": call, "explore_ms": explored, "ratio": explored / call}


def _show(rows: list[dict[str, Any]], delay: float) -> None:
    table = Table("model server", "answers", "one call ms", "explore ms", "calls' time", "limit")
    for row in rows:
        limit = LIMITS.get((row["server"], row["answers"]))
        over = limit is not None and row["ratio"] > limit
        table.add_row(
            row["server"],
            row["answers"],
            f"{row['call_ms']:.0f}",
            f"{row['explore_ms']:.0f}",
            f"[red]{row['ratio']:.2f}[/red]" if over else f"{row['ratio']:.2f}",
            "" if limit is None else f"{limit}",
        )
    out.print(table)


if __name__ == "__main__":
    typer.run(main)
