"""Looking up rules among 1,000, 10,000 and 100,000, without the embedding of the question.

    python -m benchmarks.serving.retrieval --sizes 1000,10000,100000 --out retrieval.json

Measures what the gateway does for a steered request (search of both polarities, similarity floor,
diversity; with `--examples` also the recall of as many examples), the share of the really nearest
rules that is found, writing and retiring one rule, opening the store (first out of SQL, then with
its snapshot), and the memory of it. All rules are in one namespace, each with a trigger, so the
index holds two vectors a rule; vectors are clustered around topics, as those of real rules are.

With `--examples` it also measures what the searches alone take: the three (positive rules, negative
rules, examples), and one among all vectors together that looks into as many cells, with how often
it brings what the three are asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, insert

from app.loop.steer.retriever import POOL, Retriever, RetrieverOptions
from app.settings import ExperienceLimits
from benchmarks.serving.material import example, rule
from benchmarks.serving.processes import memory
from rules_store.database.schema import embeddings, examples, namespaces, rules
from rules_store.index.shelf import Shelf
from rules_store.models.events import Change
from rules_store.models.rules import NewRule, Polarity, Vectors
from rules_store.options import StoreOptions
from rules_store.store import RuleStore

DIMENSION = 384
MODEL = "synthetic-384"
NAMESPACE = "bench"
TOPICS = 200
BATCH = 5000

Array = np.ndarray[Any, Any]
out = Console(highlight=False, width=max(110, Console().width))


class Given:
    """An embedder that is handed its vectors: only the look-up is measured."""

    name = MODEL
    dimension: int | None = DIMENSION
    ready = True

    def __init__(self) -> None:
        self.vector: Array = np.zeros(DIMENSION, dtype=np.float32)

    def forget(self) -> None:
        """It has none."""

    async def embed_anew(self, texts: Sequence[str]) -> Array:
        return await self.embed(texts)

    async def embed(self, texts: Sequence[str]) -> Array:
        return np.stack([self.vector for _ in texts])


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of rules")] = "1000,10000,100000",
    queries: Annotated[int, typer.Option(min=10, help="Look-ups measured at each size")] = 300,
    examples: Annotated[bool, typer.Option(help="As many examples as rules")] = False,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Measure retrieval at several sizes of the rule base."""
    rows = [
        asyncio.run(_measure(int(size), queries, examples=examples)) for size in sizes.split(",")
    ]
    table = Table(
        "rules",
        "first open s",
        "open s",
        "recall",
        "look-up ms",
        "p95",
        "p99",
        "write ms",
        "retire ms",
        "MiB",
    )
    for row in rows:
        table.add_row(
            f"{row['rules']}",
            f"{row['first_open_s']:.2f}",
            f"{row['open_s']:.2f}",
            f"{row['recall']:.3f}",
            f"{row['lookup_ms']['median']:.2f}",
            f"{row['lookup_ms']['p95']:.2f}",
            f"{row['lookup_ms']['p99']:.2f}",
            f"{row['write_ms']['median']:.2f}",
            f"{row['retire_ms']['median']:.2f}",
            f"{row['memory_mib']:.0f}",
        )
    out.print(table)
    for row in rows:
        if (both := row.get("with_examples")) is not None:
            times = both["lookup_ms"]
            out.print(
                f"{row['rules']} rules and examples: look-up {times['median']:.2f} ms, p99 "
                f"{times['p99']:.2f}; the three searches {both['searches_ms']:.2f}, one among all "
                f"{both['one_search_ms']:.2f}, which has what is wanted for "
                f"{both['one_search_suffices']:.0%} of the questions"
            )
    if result is not None:
        result.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


async def _measure(size: int, queries: int, *, examples: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(size)
    centres = unit(rng.normal(size=(TOPICS, DIMENSION)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.db"
        options = StoreOptions(capacity=size + queries + 1)
        store = await _open(path, options)
        await store.namespaces.ensure(NAMESPACE)
        await store.close()
        vectors = fill(path, size, centres, rng)
        questions = None
        if examples:
            questions = fill_examples(
                path, size, centres, rng, namespace=NAMESPACE, model=MODEL, first=0
            )
        built, store = await _timed(_open(path, options, path.parent))
        await store.close()
        before = memory(os.getpid())["resident"]
        opened, store = await _timed(_open(path, options, path.parent))
        used = memory(os.getpid())["resident"] - before
        try:
            found = _recall(store, vectors, near(centres, rng, 50))
            lookups, hits = await _lookups(store, centres, rng, queries)
            both = None
            if questions is not None:
                both = _searches(store, vectors, questions, near(centres, rng, queries))
                lookups_of_both, _ = await _lookups(store, centres, rng, queries, examples=4)
                both["lookup_ms"] = _figures(lookups_of_both)
            writes, retires = await _changes(store, centres, rng, min(queries, 100))
        finally:
            await store.close()
    return {
        "rules": size,
        "first_open_s": built / 1000,
        "open_s": opened / 1000,
        "lookup_ms": _figures(lookups),
        "hits": float(np.mean(hits)),
        "recall": found,
        "write_ms": _figures(writes),
        "retire_ms": _figures(retires),
        "memory_mib": used,
        **({} if both is None else {"with_examples": both}),
    }


async def _open(path: Path, options: StoreOptions, data_dir: Path | None = None) -> RuleStore:
    """`data_dir`: where the index is kept as a snapshot for the next time."""
    return await RuleStore.open(
        f"sqlite:///{path}",
        embedding_model=MODEL,
        dimension=DIMENSION,
        data_dir=data_dir,
        options=options,
    )


def unit(vectors: Array) -> Array:
    scaled: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled.astype(np.float32)


def near(centres: Array, rng: np.random.Generator, count: int) -> Array:
    """Unit vectors, shape (count, DIMENSION), at a cosine of some 0.6 to a topic's centre."""
    chosen = centres[rng.integers(len(centres), size=count)]
    noise = unit(rng.normal(size=(count, DIMENSION)))
    return unit(0.6 * chosen + 0.8 * noise)


def fill(
    path: Path,
    size: int,
    centres: Array,
    rng: np.random.Generator,
    *,
    namespace: str = NAMESPACE,
    model: str = MODEL,
    first: int = 0,
) -> Array:
    """Active rules, numbered from `first` on, straight into the tables: through the store it would
    take minutes at 100,000. Returns the vectors of texts and triggers, shape
    (2, size, DIMENSION)."""
    made = np.zeros((2, size, DIMENSION), dtype=np.float32)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        assert connection.execute(namespaces.select()).first() is not None
        for start in range(0, size, BATCH):
            stop = min(start + BATCH, size)
            numbers = range(first + start, first + stop)
            connection.execute(insert(rules), list(_rule_rows(numbers, namespace)))
            for place, kind in enumerate(("text", "trigger")):
                vectors = made[place, start:stop] = near(centres, rng, len(numbers))
                connection.execute(
                    insert(embeddings),
                    [
                        {
                            "rule_seq": number + 1,
                            "model": model,
                            "kind": kind,
                            "vector": vector.astype("<f4").tobytes(),
                        }
                        for number, vector in zip(numbers, vectors, strict=True)
                    ],
                )
    engine.dispose()
    return made


def fill_examples(
    path: Path,
    size: int,
    centres: Array,
    rng: np.random.Generator,
    *,
    namespace: str,
    model: str,
    first: int,
) -> Array:
    """Active examples, as `fill` does with rules. Returns the vectors of their questions, shape
    (size, DIMENSION)."""
    made = np.zeros((size, DIMENSION), dtype=np.float32)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for start in range(0, size, BATCH):
            numbers = range(first + start, first + min(start + BATCH, size))
            vectors = made[start : start + len(numbers)] = near(centres, rng, len(numbers))
            connection.execute(
                insert(examples), list(_example_rows(numbers, namespace, model, vectors))
            )
    engine.dispose()
    return made


def _searches(store: RuleStore, vectors: Array, questions: Array, asked: Array) -> dict[str, Any]:
    """Medians, in milliseconds, of the three searches of a look-up and of one in their place."""
    size = len(questions)
    together = Shelf(DIMENSION)
    numbers = np.arange(3 * size, dtype=np.int64)
    together.add(numbers, np.concatenate([vectors[0], vectors[1], questions]))
    wanted, apart, one, enough = 3 * POOL, [], [], 0
    for query in asked:
        began = time.perf_counter()
        for polarity in Polarity:
            store.search(NAMESPACE, query, polarity, wanted)
        store.search_examples(NAMESPACE, query, 4 * POOL)
        apart.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        found = together.search(query, 4 * wanted + 4 * POOL)
        one.append((time.perf_counter() - began) * 1000)
        kinds = ["example" if n >= 2 * size else _polarity(n % size) for n, _ in found]
        rules = {n % size: kind for (n, _), kind in zip(found, kinds, strict=True)}
        counts = [list(rules.values()).count(polarity) for polarity in Polarity]
        enough += min(counts) >= wanted and kinds.count("example") >= 4 * POOL
    return {
        "searches_ms": float(np.median(apart)),
        "one_search_ms": float(np.median(one)),
        "one_search_suffices": enough / len(asked),
    }


def _recall(store: RuleStore, vectors: Array, queries: Array) -> float:
    """Share of the rules really nearest to a query that the index finds, of the number that
    retrieval asks for."""
    wanted, shared = 3 * POOL, 0
    for query in queries:
        similarity = (vectors @ query).max(axis=0)
        for polarity in Polarity:
            own = np.array([_polarity(number) is polarity for number in range(len(similarity))])
            best = np.argsort(-np.where(own, similarity, -2.0))[:wanted]
            found = store.search(NAMESPACE, query, polarity, wanted).hits
            shared += len({_id(int(n)) for n in best} & {each.id for each in found})
    return shared / (len(queries) * len(Polarity) * wanted)


def _id(number: int) -> str:
    return f"rule_{number:024x}"


def _rule_rows(numbers: Sequence[int], namespace: str) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for number in numbers:
        text, trigger = rule(number)
        yield {
            "seq": number + 1,
            "id": _id(number),
            "namespace": namespace,
            "polarity": _polarity(number).value,
            "state": "active",
            "text": text,
            "trigger": trigger,
            "domain": "default",
            "frequency": 1,
            "exposures": 0,
            "version": 1,
            "text_hash": hashlib.sha256(text.encode()).hexdigest(),
            "created_at": now,
            "updated_at": now,
        }


def _example_rows(
    numbers: Sequence[int], namespace: str, model: str, vectors: Array
) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for number, vector in zip(numbers, vectors, strict=True):
        question, answer = example(number)
        yield {
            "seq": number + 1,
            "id": f"example_{number:024x}",
            "namespace": namespace,
            "state": "active",
            "question": question,
            "answer": answer,
            "domain": "default",
            "trust": "label",
            "exposures": 0,
            "version": 1,
            "text_hash": hashlib.sha256(f"{question}\n{answer}".encode()).hexdigest(),
            "embedding_model": model,
            "vector": vector.astype("<f4").tobytes(),
            "verified_at": now,
            "created_at": now,
            "updated_at": now,
        }


def _polarity(number: int) -> Polarity:
    return Polarity.NEGATIVE if number % 2 else Polarity.POSITIVE


async def _lookups(
    store: RuleStore, centres: Array, rng: np.random.Generator, queries: int, *, examples: int = 0
) -> tuple[list[float], list[int]]:
    embedder = Given()
    options = RetrieverOptions(floor=0.3, example_floor=0.3, timeout=10)
    retriever = Retriever(store, embedder, options)
    times, hits = [], []
    for vector in near(centres, rng, queries + 10):
        embedder.vector = vector
        started = time.perf_counter()
        retrieval = await retriever.retrieve(
            NAMESPACE, "a question", ExperienceLimits(3, 3, examples)
        )
        times.append((time.perf_counter() - started) * 1000)
        hits.append(len(retrieval.experience.rules))
    return times[10:], hits[10:]


async def _changes(
    store: RuleStore, centres: Array, rng: np.random.Generator, count: int
) -> tuple[list[float], list[float]]:
    writes, retires = [], []
    for number, (text, trigger) in enumerate(zip(*_near_pairs(centres, rng, count), strict=True)):
        new = NewRule(NAMESPACE, _polarity(number), f"Written while measuring, number {number}.")
        took, made = await _timed(
            store.rules.create(new, Vectors(text, trigger), change=Change("benchmark", "material"))
        )
        writes.append(took)
        took, _ = await _timed(store.rules.retire(made.id, change=Change("benchmark", "material")))
        retires.append(took)
    return writes, retires


def _near_pairs(centres: Array, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    return near(centres, rng, count), near(centres, rng, count)


async def _timed(work: Coroutine[Any, Any, Any]) -> tuple[float, Any]:
    """Milliseconds and result; a coroutine does nothing before it is awaited."""
    started = time.perf_counter()
    result = await work
    return (time.perf_counter() - started) * 1000, result


def _figures(values: list[float]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "p99": float(np.percentile(values, 99)),
    }


if __name__ == "__main__":
    typer.run(main)
