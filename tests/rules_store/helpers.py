"""Short words for the store's tests: vectors with known cosines, rules, jobs, a clock."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from rules_store.models.events import Change
from rules_store.models.evidence import Exposure
from rules_store.models.jobs import Job
from rules_store.models.rules import (
    Draft,
    LearningResult,
    NewRule,
    Polarity,
    Rule,
    RuleFilter,
    Vector,
    Vectors,
)
from rules_store.options import StoreOptions
from rules_store.store import RuleStore
from tests import postgres

DIMENSION = 32
MODEL = "test-model"
POSITIVE, NEGATIVE = Polarity.POSITIVE, Polarity.NEGATIVE


def exposure(rule_id: str, position: int | None = 0) -> Exposure:
    """Of position None: withheld."""
    return Exposure(rule_id, position, similarity=0.8, score=0.9)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


async def open_store(
    folder: Path,
    *,
    model: str = MODEL,
    dimension: int | None = DIMENSION,
    clock: Callable[[], datetime] | None = None,
    **options: Any,
) -> RuleStore:
    more = {} if clock is None else {"clock": clock}
    return await RuleStore.open(
        database_url(folder),
        embedding_model=model,
        dimension=dimension,
        data_dir=folder,
        options=StoreOptions(**{"max_attempts": 5, **options}),
        **more,
    )


def database_url(folder: Path) -> str:
    """The folder's database, of the kind that the test runs on."""
    return postgres.url_of(folder) or f"sqlite:///{folder / 'store.db'}"


def axis(number: int) -> Vector:
    """Unit vectors that are orthogonal to each other, for numbers below DIMENSION."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    vector[number] = 1.0
    return vector


def between(first: int, second: int, cosine: float) -> Vector:
    """A unit vector with this cosine to `axis(first)`, in the plane with `axis(second)`."""
    return (cosine * axis(first) + np.sqrt(1 - cosine**2) * axis(second)).astype(np.float32)


def random_vector(seed: int) -> Vector:
    """Nearly orthogonal to those of other seeds (all cosines of the first thousands < 0.95)."""
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


async def write(
    store: RuleStore,
    text: str,
    vector: Vector,
    *,
    namespace: str = "default",
    polarity: Polarity = POSITIVE,
    trigger: str = "",
    trigger_vector: Vector | None = None,
    **more: Any,
) -> Rule:
    new = NewRule(namespace, polarity, text, trigger, **more)
    return await store.rules.create(
        new, Vectors(vector, trigger_vector), change=Change("tester", "test")
    )


def draft(text: str, vector: Vector | None, *, namespace: str = "default", **more: Any) -> Draft:
    polarity = more.pop("polarity", POSITIVE)
    return Draft(NewRule(namespace, polarity, text, **more), Vectors(vector))


async def begin(store: RuleStore, episode: str, namespace: str = "default", **more: Any) -> Any:
    arguments = {"mode": "steer", "question": "How many?", "model": "m", **more}
    return await store.episodes.begin(episode, namespace=namespace, **arguments)


async def new_job(
    store: RuleStore, episode: str, namespace: str = "default", key_id: str | None = None
) -> None:
    await begin(store, episode, namespace, key_id=key_id)
    await store.episodes.finish(episode, answer="4", trace={"kept": 1}, job_payload={"n": episode})


async def claimed(store: RuleStore, episode: str, namespace: str = "default") -> Job:
    await new_job(store, episode, namespace)
    job = await store.jobs.claim("worker", key=episode)
    assert job is not None
    return job


async def learn(store: RuleStore, episode: str, *drafts: Draft) -> LearningResult:
    namespace = drafts[0].rule.namespace
    return await store.jobs.apply(await claimed(store, episode, namespace), drafts)


async def all_rules(store: RuleStore, **where: Any) -> list[Rule]:
    page = await store.rules.list(RuleFilter(**where), limit=100_000)
    return page.items


def sql(folder: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Straight into the database, past the store."""
    url = postgres.url_of(folder)
    if url is not None:
        return postgres.query(url, statement, values)
    connection = sqlite3.connect(folder / "store.db", timeout=5)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()
