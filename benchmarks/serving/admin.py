"""Lists, searches and pruning of a large rule base, as the admin API does them.

    python -m benchmarks.serving.admin --rules 100000 --out admin.json

All rules are in one namespace; vectors are as in `benchmarks.serving.retrieval`. Without HTTP, and
without the embedding of a search text. `--url` measures a PostgreSQL database instead of a SQLite
file; it must be empty, and stays full.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.material import incoming, rule
from benchmarks.serving.retrieval import DIMENSION, MODEL, NAMESPACE, TOPICS, near, unit
from rules_store.models.events import Change
from rules_store.models.evidence import Exposure, Outcome, Signal
from rules_store.models.rules import (
    Polarity,
    RuleFilter,
    RuleSort,
    RuleState,
    Vectors,
)
from rules_store.operations.curation import PruneOrder, PrunePolicy
from rules_store.operations.exchange import IncomingRule
from rules_store.options import StoreOptions
from rules_store.store import RuleStore

BATCH = 5000
PRUNED = 10_000
MEASURED = 20_000
"""Rules that get a lift."""

out = Console(highlight=False, width=max(110, Console().width))


def main(
    rules: Annotated[int, typer.Option(min=1000, help="Rules in the namespace")] = 100_000,
    rounds: Annotated[int, typer.Option(min=5, help="Times that each is measured")] = 21,
    url: Annotated[str | None, typer.Option(help="Database; unset: a new SQLite file")] = None,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure lists and searches of a large rule base."""
    with tempfile.TemporaryDirectory() as folder:
        where = url or f"sqlite:///{Path(folder) / 'rules.db'}"
        figures = asyncio.run(_measure(where, rules, rounds))
    table = Table("what", "median ms", "p95", "total")
    for name, row in figures.items():
        table.add_row(name, f"{row['median']:.1f}", f"{row['p95']:.1f}", str(row["total"]))
    out.print(table)
    if result is not None:
        result.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")


async def _measure(url: str, size: int, rounds: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(size)
    centres = unit(rng.normal(size=(TOPICS, DIMENSION)))
    store = await RuleStore.open(
        url,
        embedding_model=MODEL,
        dimension=DIMENSION,
        options=StoreOptions(capacity=size + 1),
    )
    try:
        await store.namespaces.ensure(NAMESPACE)
        started = time.perf_counter()
        for start in range(0, size, BATCH):
            numbers = range(start, min(start + BATCH, size))
            items = _items(numbers, near(centres, rng, len(numbers)))
            await store.exchange.import_rules(items, change=Change("benchmark", "material"))
        imported = (time.perf_counter() - started) * 1000
        figures = {"import of all": {"median": imported, "p95": imported, "total": size}}
        await _give_lifts(store, min(size, MEASURED))
        for name, where, sort in _LISTS:
            page, figure = await _timed(partial(store.rules.list, where, sort=sort), rounds)
            figures[f"list: {name}"] = {**figure, "total": page.total}
        query = near(centres, rng, 1)[0]
        found, figure = await _timed(
            lambda: store.rules.nearest(query, namespace=NAMESPACE), rounds
        )
        figures["search by meaning"] = {**figure, "total": len(found)}
        for policy in (PrunePolicy.FIFO, PrunePolicy.UTILITY):
            order = PruneOrder(NAMESPACE, policy, keep=max(0, size - PRUNED))
            plan, figure = await _timed(partial(store.curation.plan_prune, order), 3)
            figures[f"prune preview: {policy.value}"] = {**figure, "total": len(plan.victims)}
        done, figure = await _timed(
            lambda: store.curation.prune(
                order, token=plan.token, change=Change("benchmark", "measured")
            ),
            1,
        )
        figures["prune"] = {**figure, "total": len(done.victims)}
        parity = await store.parity()
        assert parity.ok, parity
    finally:
        await store.close()
    return figures


async def _give_lifts(store: RuleStore, count: int) -> None:
    """Lets `count` rules have steered a request that went well."""
    for start in range(0, count, BATCH):
        name, numbers = f"ep_{start}", range(start, min(start + BATCH, count))
        await store.episodes.begin(
            name, namespace=NAMESPACE, mode="steer", question="material", model="none"
        )
        shown = [Exposure(f"rule_{number:024x}", number, 0.5, 0.5) for number in numbers]
        await store.episodes.finish(name, answer="4", trace={}, exposures=shown)
        await store.evidence.record_outcome(name, Outcome(Signal.VERIFIER, 1.0))


_PAST = datetime.now(UTC) - timedelta(days=1)
_LISTS: tuple[tuple[str, RuleFilter, RuleSort], ...] = (
    ("everything", RuleFilter(), RuleSort.NEWEST),
    ("namespace", RuleFilter(namespace=NAMESPACE), RuleSort.NEWEST),
    ("oldest", RuleFilter(namespace=NAMESPACE), RuleSort.OLDEST),
    ("most used", RuleFilter(namespace=NAMESPACE), RuleSort.USED),
    ("active", RuleFilter(namespace=NAMESPACE, state=RuleState.ACTIVE), RuleSort.NEWEST),
    ("negative", RuleFilter(namespace=NAMESPACE, polarity=Polarity.NEGATIVE), RuleSort.NEWEST),
    ("a domain", RuleFilter(namespace=NAMESPACE, domain="none"), RuleSort.NEWEST),
    ("since yesterday", RuleFilter(namespace=NAMESPACE, created_after=_PAST), RuleSort.NEWEST),
    ("ever used", RuleFilter(namespace=NAMESPACE, min_exposures=1), RuleSort.NEWEST),
    ("lift above zero", RuleFilter(namespace=NAMESPACE, min_lift=0.0), RuleSort.NEWEST),
    ("lift below zero", RuleFilter(namespace=NAMESPACE, max_lift=0.0), RuleSort.NEWEST),
    ("common text", RuleFilter(namespace=NAMESPACE, text="number"), RuleSort.NEWEST),
    ("rare text", RuleFilter(namespace=NAMESPACE, text="lot 777"), RuleSort.NEWEST),
    ("no such text", RuleFilter(namespace=NAMESPACE, text="zebra"), RuleSort.NEWEST),
)


def _items(numbers: range, vectors: np.ndarray[Any, Any]) -> list[IncomingRule]:
    return [
        incoming(
            number,
            Vectors(text=vector),
            namespace=NAMESPACE,
            text=f"{rule(number)[0]} ({number})",
        )
        for number, vector in zip(numbers, vectors, strict=True)
    ]


async def _timed(work: Callable[[], Awaitable[Any]], rounds: int) -> tuple[Any, dict[str, float]]:
    """The last result and milliseconds."""
    times: list[float] = []
    result: Any = None
    for _ in range(rounds):
        started = time.perf_counter()
        result = await work()
        times.append((time.perf_counter() - started) * 1000)
    return result, {
        "median": float(np.median(times)),
        "p95": float(np.percentile(times, 95)),
    }


if __name__ == "__main__":
    typer.run(main)
