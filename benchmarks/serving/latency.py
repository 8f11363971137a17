"""What the gateway adds to a model server: time by mode and number of rules, throughput, memory.

    python -m benchmarks.serving.latency --requests 300 --rules 0,100,1000 --out latency.json

Every round sends one request of each kind, in random order, on one connection each, and measures
one embedding by itself; differences are taken within a round, so that a busy machine disturbs all
kinds alike. `embedding` is a text of the same kind, embedded in this process by the code that the
gateway uses. Every question is new, so nothing comes out of the embedding cache.

Not covered: time to the first token of a stream, and clients on other machines.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
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
from benchmarks.serving.material import question, rule
from benchmarks.serving.processes import ADMIN_KEY, Client, gateway, memory, scripted_upstream
from benchmarks.serving.retrieval import DIMENSION, TOPICS, fill, unit

WARM_UP = 20
"""Rounds that are not counted."""
OFF_LIMIT, STEER_LIMIT = 2.0, 5.0
"""Milliseconds that off may add, and steer beyond the embedding."""
STEER_RATIO = 1.3
"""Times one embedding that steer may add."""
WRITTEN = 1000
"""Rules of a namespace that are written as they come, embeddings and all."""

out = Console(highlight=False, width=max(100, Console().width))


def main(
    requests: Annotated[int, typer.Option(min=10, help="Rounds that are measured")] = 300,
    rules: Annotated[str, typer.Option(help="Numbers of rules, comma-separated")] = "0,100,1000",
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
    if database is not None and max(counts) > WRITTEN:
        raise typer.BadParameter(f"--rules: at most {WRITTEN} with --database")
    more = {} if database is None else {"DATABASE_URL": database}
    with tempfile.TemporaryDirectory() as folder, scripted_upstream() as upstream_port:
        if max(counts) > WRITTEN:
            _crowd(upstream_port, Path(folder), [each for each in counts if each > WRITTEN])
        settings = {"LEARN": str(learn).lower(), "CAPACITY": str(max(1000, *counts)), **more}
        with gateway(upstream_port, Path(folder), **settings) as (port, pid):
            report = _measure(port, pid, upstream_port, counts, requests, clients, load)
    report["learn"] = learn
    _show(report)
    if result is not None:
        result.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def _crowd(upstream_port: int, folder: Path, counts: list[int]) -> None:
    """Some rules as they come, and so many more with vectors that no question is near to."""
    with gateway(upstream_port, folder) as (port, _):
        for count in counts:
            _write_rules(port, WRITTEN, f"rules-{count}")
    (folder / "index" / "rules.index").unlink()
    rng = np.random.default_rng(1)
    centres = unit(rng.normal(size=(TOPICS, DIMENSION)))
    first = WRITTEN * len(counts)
    for count in counts:
        fill(
            folder / "ttcl.db",
            count - WRITTEN,
            centres,
            rng,
            namespace=f"rules-{count}",
            model=local_embedder(None).name,
            first=first,
        )
        first += count


def _measure(
    port: int,
    pid: int,
    upstream_port: int,
    counts: list[int],
    requests: int,
    clients: int,
    load: float,
) -> dict[str, Any]:
    idle = memory(pid)
    for count in counts:
        if count <= WRITTEN:
            load_rules(port, count)
    kinds = [
        Kind("bare", Client(upstream_port), {}),
        Kind("off", Client(port), {"X-TTCL-Mode": "off"}),
        *(
            Kind(
                f"steer, {count} rules",
                Client(port),
                {"X-TTCL-Mode": "steer", "X-TTCL-Namespace": f"rules-{count}"},
            )
            for count in counts
        ),
    ]
    samples, injected = asyncio.run(_rounds(kinds, requests))
    return {
        "requests": requests,
        "rules_injected": injected,
        "times_ms": summarise(samples, injected),
        "throughput_per_second": _throughput(kinds, clients, load) if load else {},
        "memory_mib": {"started": idle, "after": memory(pid)},
    }


def load_rules(port: int, count: int) -> None:
    """That many in a namespace that is named after their number."""
    _write_rules(port, count, f"rules-{count}")


def _write_rules(port: int, count: int, namespace: str) -> None:
    client = Client(port)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    for number in range(count):
        text, trigger = rule(number)
        body = {
            "namespace": namespace,
            "polarity": ("positive", "negative")[number % 2],
            "text": text,
            "trigger": trigger,
            "actor": "benchmark",
            "reason": "material",
        }
        status, _, content = client.send("POST", "/admin/v1/rules", body, headers)
        if status != 201:
            raise ConfigurationError(f"rule {number} was refused with {status}: {content[:200]!r}")
    client.close()


async def _rounds(
    kinds: list[Kind], requests: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of each kind and of `embedding`, one a round; median rules injected."""
    embedder = local_embedder(None)
    embedder.start()
    while not embedder.ready:
        await asyncio.sleep(0.1)
        if embedder.failure:
            raise ConfigurationError(embedder.failure)
    names = [*(kind.name for kind in kinds), "embedding"]
    samples: dict[str, list[float]] = {name: [] for name in names}
    injected: dict[str, list[int]] = {kind.name: [] for kind in kinds}
    rng = random.Random(1)
    for number in track(range(WARM_UP + requests), description="measuring"):
        order: list[Kind | None] = [*kinds, None]
        rng.shuffle(order)
        for place, kind in enumerate(order):
            text = question(number * len(order) + place)
            if kind is None:
                took = await _embed(embedder, text)
            else:
                took, hits = ask(kind, text)
                injected[kind.name].append(hits)
            if number >= WARM_UP:
                samples["embedding" if kind is None else kind.name].append(took)
    await embedder.close()
    return samples, {name: statistics.median(hits) for name, hits in injected.items()}


async def _embed(embedder: CachedEmbedder, text: str) -> float:
    started = time.perf_counter()
    await embedder.embed([text])
    return (time.perf_counter() - started) * 1000


def summarise(
    samples: dict[str, list[float]], injected: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Per kind: median, 95th percentile, and the medians of what it adds to `bare` (and beyond
    `embedding`, where rules were looked up) with 95% bootstrap intervals; all in milliseconds,
    paired by round."""
    bare, embedding = np.array(samples["bare"]), np.array(samples["embedding"])
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
        if injected.get(name):
            row["added_beyond_embedding"] = _median(times - bare - embedding)
            row["embeddings"] = float(np.median(times - bare) / np.median(embedding))
        rows[name] = row
    return rows


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
    for name, count in report["rules_injected"].items():
        if name.startswith("steer"):
            out.print(f"{name}: {count:g} rules injected (median)")
    used = report["memory_mib"]["after"]
    out.print(f"gateway memory: {used['resident']:.0f} MiB, at most {used['peak']:.0f} MiB")
    for name, row in report["times_ms"].items():
        _verdict(name, row)


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
