"""Rolling a namespace back over many events.

    python -m benchmarks.serving.rollback --events 10000 --out rollback.json

Half of the events reword a rule that was there before, half write a new one. Measured: the plan,
the rollback with the index right after it, and the rollback of the rollback. The vectors of old
texts are handed over as the gateway does; what a model takes to make them comes on top.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.material import incoming
from rules_store.models.events import Change, Rollback, RollbackTarget
from rules_store.models.rules import Rule, Vectors
from rules_store.options import StoreOptions
from rules_store.store import RuleStore

DIMENSION = 384
NAMESPACE = "bench"
WHO = Change("bench", "measured")
out = Console(highlight=False)


def main(
    events: Annotated[int, typer.Option(min=2, help="Events to go back over")] = 10_000,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure a rollback."""
    row = asyncio.run(_measure(events))
    table = Table(*row)
    shown = [f"{each:.2f}" if isinstance(each, float) else f"{each}" for each in row.values()]
    table.add_row(*shown)
    out.print(table)
    if result is not None:
        result.write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2) + b"\n")


async def _measure(events: int) -> dict[str, Any]:
    half = events // 2
    with tempfile.TemporaryDirectory() as folder:
        store = await RuleStore.open(
            f"sqlite:///{Path(folder) / 'rules.db'}",
            embedding_model="synthetic-384",
            options=StoreOptions(capacity=4 * events),
        )
        try:
            await store.namespaces.ensure(NAMESPACE)
            old = await _written(store, range(half))
            then = (await store.stats()).last_event
            await _reworded(store, old)
            await _written(store, range(half, 2 * half))
            vectors = {each.id: _text(number) for number, each in enumerate(old)}
            return await _timed(store, then, 2 * half, vectors)
        finally:
            await store.close()


async def _timed(
    store: RuleStore, then: int, events: int, vectors: dict[str, Vectors]
) -> dict[str, Any]:
    started = time.perf_counter()
    await store.history.plan_rollback(NAMESPACE, RollbackTarget(event=then))
    planned, cpu = time.perf_counter(), time.process_time()
    done = await store.history.roll_back(NAMESPACE, RollbackTarget(event=then), vectors, change=WHO)
    rolled, cpu = time.perf_counter(), time.process_time() - cpu
    await _check(store, done, events)
    again = time.perf_counter()
    undone = await store.history.roll_back(
        NAMESPACE, RollbackTarget(event=done.before_event), change=WHO
    )
    end = time.perf_counter()
    return {
        "events": events,
        "rules changed": len(done.changes),
        "plan s": planned - started,
        "rollback s": rolled - planned,
        "of it CPU s": cpu,
        "undone s": end - again,
        "undone rules": len(undone.changes),
    }


async def _check(store: RuleStore, done: Rollback, events: int) -> None:
    parity = await store.parity()
    if not parity.ok or parity.indexed != events // 2 or len(done.changes) != events:
        raise SystemExit(f"the index is not as it should be: {parity}, {len(done.changes)}")


async def _written(store: RuleStore, numbers: range) -> list[Rule]:
    """In one transaction: what is arranged here a gateway writes in days."""
    new = [incoming(number, _vectors(number), namespace=NAMESPACE) for number in numbers]
    await store.exchange.import_rules(new, change=WHO)
    return [each.rule for each in new]


async def _reworded(store: RuleStore, rules: Sequence[Rule]) -> None:
    for number, each in enumerate(rules):
        vectors = Vectors(text=_vectors(10**6 + number).text)
        text = f"{each.text} {number}"
        await store.rules.patch(each.id, text=text, vectors=vectors, change=WHO)


def _vectors(number: int) -> Vectors:
    rng = np.random.default_rng(number)
    text, trigger = rng.normal(size=(2, DIMENSION)).astype(np.float32)
    return Vectors(text=text, trigger=trigger)


def _text(number: int) -> Vectors:
    """Of a rule whose trigger stays."""
    return Vectors(text=_vectors(number).text)


if __name__ == "__main__":
    typer.run(main)
