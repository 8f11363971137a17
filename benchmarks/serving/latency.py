"""What the gateway adds to a model server: time by mode and number of rules and examples,
throughput, memory.

    python -m benchmarks.serving.latency --requests 300 --rules 0,100,1000 --out latency.json
    python -m benchmarks.serving.latency --rules 10000 --examples 10000

Every round sends one request of each kind, in random order, on one connection each, and measures
one embedding by itself; differences are taken within a round, so that a busy machine disturbs all
kinds alike. `embedding` is a text of the same kind, embedded in this process by the code that the
gateway uses. Every question is new, so nothing comes out of the embedding cache. The model server
answers at once: what a model makes of the longer prompt is not in the figures.

Not covered: clients on other machines. Time to the first token: `benchmarks.serving.first_token`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from app.exceptions import ConfigurationError
from app.upstream.embeddings import CachedEmbedder, local_embedder
from benchmarks.serving.asking import Kind, ask, pressure
from benchmarks.serving.contents import WRITTEN, Contents, crowd, write
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client, gateway, memory, scripted_upstream

WARM_UP = 20
"""Rounds that are not counted."""
OFF_LIMIT, STEER_LIMIT = 2.0, 5.0
"""Milliseconds that off may add, and steer beyond the embedding."""
STEER_RATIO = 1.3
"""Times one embedding that steer may add."""
EXAMPLES_RATIO = 1.15
"""Times what steer adds with the rules alone that it may add with examples as well."""

out = Console(highlight=False, width=max(100, Console().width))


def main(
    requests: Annotated[int, typer.Option(min=10, help="Rounds that are measured")] = 300,
    rules: Annotated[str, typer.Option(help="Numbers of rules, comma-separated")] = "0,100,1000",
    examples: Annotated[
        str | None, typer.Option(help="Numbers of examples beside the most rules, comma-separated")
    ] = None,
    learn: Annotated[bool, typer.Option(help="Learn in the background meanwhile")] = False,
    load: Annotated[float, typer.Option(min=0, help="Seconds of each throughput test")] = 5.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients of the throughput tests")] = 8,
    database: Annotated[
        str | None, typer.Option(help="postgresql:// URL of an empty database; unset: SQLite")
    ] = None,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure a gateway against an instant upstream."""
    counts = [int(part) for part in rules.split(",")]
    beside = [int(part) for part in examples.split(",")] if examples else []
    spaces = [Contents(count) for count in counts]
    spaces += [Contents(max(counts), count) for count in beside]
    crowds = [each for each in spaces if each.crowded]
    if database is not None and crowds:
        raise typer.BadParameter(f"--rules, --examples: at most {WRITTEN} with --database")
    settings = {
        "LEARN": str(learn).lower(),
        "CAPACITY": str(max(1000, *counts)),
        "EXAMPLE_CAPACITY": str(max(1000, *beside, 0)),
        **({} if database is None else {"DATABASE_URL": database}),
    }
    with tempfile.TemporaryDirectory() as folder, scripted_upstream() as upstream_port:
        if crowds:
            crowd(upstream_port, Path(folder), crowds)
        with gateway(upstream_port, Path(folder), **settings) as (port, pid):
            report = measure(port, pid, upstream_port, spaces, requests, clients, load)
    report["learn"] = learn
    _show(report)
    if result is not None:
        result.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def measure(
    port: int,
    pid: int,
    upstream_port: int,
    spaces: list[Contents],
    requests: int,
    clients: int,
    load: float,
) -> dict[str, Any]:
    """Times, throughput (with `load`: seconds of each test) and memory, with these contents, which
    are there or are written now."""
    idle = memory(pid)
    for each in spaces:
        if not each.crowded:
            write(port, each)
    kinds = [
        Kind("bare", Client(upstream_port), {}),
        Kind("off", Client(port), {"X-TTCL-Mode": "off"}),
        *(Kind(f"steer, {each}", Client(port), each.headers) for each in spaces),
    ]
    samples, injected = asyncio.run(_rounds(kinds, requests))
    most = max(each.rules for each in spaces)
    return {
        "requests": requests,
        "injected": injected,
        "times_ms": summarise(samples, {kind for kind, each in injected.items() if any(each)}),
        "examples": {
            str(each): compare(
                samples["bare"], samples[f"steer, {Contents(most)}"], samples[f"steer, {each}"]
            )
            for each in spaces
            if each.examples
        },
        "throughput_per_second": _throughput(kinds, clients, load) if load else {},
        "memory_mib": {"started": idle, "after": memory(pid)},
    }


async def _rounds(
    kinds: list[Kind], requests: int
) -> tuple[dict[str, list[float]], dict[str, tuple[float, float]]]:
    """Milliseconds of each kind and of `embedding`, one a round; by kind, the medians of rules and
    of examples injected."""
    embedder = local_embedder(None)
    embedder.start()
    while not embedder.ready:
        await asyncio.sleep(0.1)
        if embedder.failure:
            raise ConfigurationError(embedder.failure)
    names = [*(kind.name for kind in kinds), "embedding"]
    samples: dict[str, list[float]] = {name: [] for name in names}
    injected: dict[str, list[tuple[int, int]]] = {kind.name: [] for kind in kinds}
    rng = random.Random(1)
    for number in track(range(WARM_UP + requests), description="measuring"):
        order: list[Kind | None] = [*kinds, None]
        rng.shuffle(order)
        for place, kind in enumerate(order):
            text = question(number * len(order) + place)
            if kind is None:
                took = await _embed(embedder, text)
            else:
                took, *hits = ask(kind, text)
                injected[kind.name].append((hits[0], hits[1]))
            if number >= WARM_UP:
                samples["embedding" if kind is None else kind.name].append(took)
    await embedder.close()
    medians = {
        name: (statistics.median(rules), statistics.median(examples))
        for name, hits in injected.items()
        for rules, examples in [zip(*hits, strict=True)]
    }
    return samples, medians


async def _embed(embedder: CachedEmbedder, text: str) -> float:
    started = time.perf_counter()
    await embedder.embed([text])
    return (time.perf_counter() - started) * 1000


def summarise(
    samples: dict[str, list[float]], injected: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Per kind: median, 95th percentile, and the medians of what it adds to `bare` (and beyond
    `embedding`, where it is among those `injected`) with 95% bootstrap intervals; all in
    milliseconds, paired by round."""
    bare, embedding = np.array(samples["bare"]), np.array(samples.get("embedding", 0.0))
    rows: dict[str, dict[str, Any]] = {}
    for name, values in samples.items():
        times = np.array(values)
        row: dict[str, Any] = {
            "median": float(np.median(times)),
            "p95": float(np.percentile(times, 95)),
        }
        if name not in ("bare", "embedding"):
            row["added"] = _median(times - bare)
            row["ratio"] = float(np.median(times) / np.median(bare))
        if name in injected:
            row["added_beyond_embedding"] = _median(times - bare - embedding)
            row["embeddings"] = float(np.median(times - bare) / np.median(embedding))
        rows[name] = row
    return rows


def compare(bare: list[float], rules: list[float], both: list[float]) -> dict[str, Any]:
    """What examples cost beside rules, by rounds: `more`, the median of the differences in
    milliseconds, and `ratio`, of it and what the rules add to `bare`, to that; with 95% bootstrap
    intervals."""
    base, alone, together = (np.array(values) for values in (bare, rules, both))
    more, added = together - alone, alone - base

    def ratio(more: np.ndarray[Any, Any], added: np.ndarray[Any, Any], axis: int = -1) -> Any:
        return 1.0 + np.median(more, axis=axis) / np.median(added, axis=axis)

    result = stats.bootstrap(
        (more, added),
        ratio,
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    low, high = result.confidence_interval
    found = {"median": float(ratio(more, added)), "low": float(low), "high": float(high)}
    return {"more": _median(more), "ratio": found}


def _median(values: np.ndarray[Any, Any]) -> dict[str, float]:
    result = stats.bootstrap(
        (values,), np.median, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    )
    low, high = result.confidence_interval
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def _throughput(kinds: list[Kind], clients: int, seconds: float) -> dict[str, float]:
    """Requests per second of each kind, `clients` asking one after the other."""
    return {
        kind.name: pressure(kind, clients, seconds, start=10_000_000 * (index + 1))
        for index, kind in enumerate(kinds)
    }


def _show(report: dict[str, Any]) -> None:
    table = Table(
        "kind", "median ms", "p95 ms", "added ms", "beyond embedding ms", "x bare", "req/s"
    )
    for name, row in report["times_ms"].items():
        rate = report["throughput_per_second"].get(name)
        table.add_row(
            name,
            f"{row['median']:.2f}",
            f"{row['p95']:.2f}",
            _interval(row.get("added")),
            _interval(row.get("added_beyond_embedding")),
            f"{row['ratio']:.2f}" if "ratio" in row else "",
            f"{rate:.0f}" if rate else "",
        )
    out.print(table)
    for name, (rules, examples) in report["injected"].items():
        if name.startswith("steer"):
            out.print(f"{name}: {rules:g} rules, {examples:g} examples injected (medians)")
    used = report["memory_mib"]["after"]
    out.print(f"gateway memory: {used['resident']:.0f} MiB, at most {used['peak']:.0f} MiB")
    for name, row in report["times_ms"].items():
        _verdict(name, row)
    for name, row in report["examples"].items():
        word = "within" if row["ratio"]["median"] <= EXAMPLES_RATIO else "[red]over[/red]"
        out.print(
            f"{name}: {_interval(row['more'])} ms more than the rules alone, {word} the limit: "
            f"{_interval(row['ratio'])} times what they add, at most {EXAMPLES_RATIO}"
        )


def _verdict(name: str, row: dict[str, Any]) -> None:
    if name == "off":
        added, limit = row["added"]["median"], OFF_LIMIT
    elif name.startswith("steer"):
        added, limit = row.get("added_beyond_embedding", row["added"])["median"], STEER_LIMIT
    else:
        return
    word = "within" if added <= limit else "[red]over[/red]"
    out.print(f"{name}: {added:.2f} ms, {word} the limit of {limit:.0f} ms")
    if (times := row.get("embeddings")) is not None:
        word = "within" if times <= STEER_RATIO else "[red]over[/red]"
        out.print(f"{name}: {times:.2f} embeddings, {word} the limit of {STEER_RATIO}")


def _interval(value: dict[str, float] | None) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})" if value else ""


if __name__ == "__main__":
    typer.run(main)
