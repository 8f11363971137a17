"""Brings vectors for rules and examples that have none of the current embedding model: after the
model was changed, also behind its name, or for what was written while the embedder was down."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import structlog

from app.learning.drafts import retrieval_key
from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.errors import StoreError
from rules_store.models.examples import Example, ExampleEmbedding
from rules_store.models.rules import Rule, RuleEmbedding, Vectors
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

BATCH = 64
INTERVAL = 5.0
PROBE_INTERVAL = 60.0
"""Seconds between looks whether the embedding model is still the same."""
PROBES = (
    "What is the capital of France?",
    "Count the apples that are left after three of them were eaten.",
    "The card payment was declined although there was money in the account.",
)
"""Sentences whose vectors tell one model from another. Never to be changed: every store would take
its model for another one."""


Item = TypeVar("Item", Rule, Example)
Embedding = TypeVar("Embedding", RuleEmbedding, ExampleEmbedding)


@dataclass(frozen=True, slots=True)
class _Kind(Generic[Item, Embedding]):
    """What is embedded, and how."""

    name: str
    waiting: Callable[[int], Awaitable[list[Item]]]
    embedded: Callable[[Sequence[Item]], Awaitable[list[Embedding]]]
    add: Callable[[Sequence[Embedding]], Awaitable[int]]
    refused: set[tuple[str, int]] = field(default_factory=set)
    """Ids and versions of what can't be embedded."""


class Reembedding:
    """Looks after the vectors of one store."""

    def __init__(
        self,
        store: RuleStore,
        embedder: Embedder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock
        self._probed_at = -math.inf
        self.changed = False
        """Whether the model has become another one and not all is embedded anew."""
        self.failure: str | None = None
        """Why the last look at the model came to nothing."""
        self._rules = _Kind(
            "rules",
            store.rules.without_embedding,
            partial(embedded, store, embedder),
            store.rules.add_embeddings,
        )
        self._examples = _Kind(
            "examples",
            store.examples.without_embedding,
            partial(embedded_examples, embedder),
            store.examples.add_embeddings,
        )

    async def run(self) -> None:
        """Until cancelled; looks every few seconds."""
        while True:
            if self._embedder.ready:
                await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Whether the model is the same, and what waits for a vector. A failure is logged."""
        try:
            await self._probe()
            if await self._store.embedder.look():
                await self._catch_up(self._rules)
                await self._catch_up(self._examples)
            self.changed = bool(self.changed and await self._store.embedder.look())
        except StoreError as error:
            log.warning("the store's vectors could not be looked at", error=str(error))

    async def _probe(self) -> None:
        """Raises StoreError."""
        known, told = self._store.dimension, self._embedder.dimension
        due = self._clock() - self._probed_at >= PROBE_INTERVAL
        if not due and known in (None, told):
            return
        try:
            probes = await self._embedder.embed_anew(PROBES)
        except EmbeddingFailed as error:
            self.failure = str(error)
            return
        self.failure, self._probed_at = None, self._clock()
        if await self._store.embedder.note(probes):
            self._embedder.forget()
            self.changed = True

    async def _catch_up(self, kind: _Kind[Item, Embedding]) -> None:
        """Until nothing of this kind waits. A failure is logged. Raises StoreError."""
        try:
            while items := await _waiting(kind):
                done = await _embedded_or_refused(kind, items)
                await kind.add(done)
                log.info(f"{kind.name} embedded", count=len(done), model=self._embedder.name)
                await self._store.embedder.look()
        except EmbeddingFailed as error:
            log.warning(f"embedding of {kind.name} postponed", error=str(error))


async def _waiting(kind: _Kind[Item, Embedding]) -> list[Item]:
    found = await kind.waiting(BATCH + len(kind.refused))
    return [item for item in found if (item.id, item.version) not in kind.refused][:BATCH]


async def _embedded_or_refused(
    kind: _Kind[Item, Embedding], items: Sequence[Item]
) -> list[Embedding]:
    """Where not all can be embedded, one by one: what never can must not stand in the way of the
    others. Raises `EmbeddingFailed` where none can."""
    try:
        return await kind.embedded(items)
    except EmbeddingFailed:
        if len(items) == 1:
            raise
    done: list[Embedding] = []
    failed: list[Item] = []
    for item in items:
        try:
            done += await kind.embedded([item])
        except EmbeddingFailed as error:
            log.warning("not embedded", id=item.id, error=str(error))
            failed.append(item)
    if not done:
        raise EmbeddingFailed(f"none of {len(items)} {kind.name} can be embedded now")
    kind.refused.update((item.id, item.version) for item in failed)
    return done


async def embedded_examples(
    embedder: Embedder, examples: Sequence[Example]
) -> list[ExampleEmbedding]:
    """Vectors of their questions. Raises `EmbeddingFailed`."""
    rows = await embedder.embed([example.question for example in examples])
    return [
        ExampleEmbedding(example.id, example.version, row)
        for example, row in zip(examples, rows, strict=True)
    ]


async def embedded(
    store: RuleStore, embedder: Embedder, rules: Sequence[Rule]
) -> list[RuleEmbedding]:
    """Vectors of their texts and triggers. Raises `EmbeddingFailed`."""
    keys = [await _key(store, rule) for rule in rules]
    texts = [text for rule, key in zip(rules, keys, strict=True) for text in (rule.text, key)]
    rows = iter(await embedder.embed([text for text in texts if text]))
    return [
        RuleEmbedding(
            rule.id, rule.version, Vectors(text=next(rows), trigger=next(rows) if key else None)
        )
        for rule, key in zip(rules, keys, strict=True)
    ]


async def _key(store: RuleStore, rule: Rule) -> str:
    """As for a new rule; without the episode that it came from, by its trigger alone."""
    episode = await store.episodes.source_of(rule)
    return rule.trigger if episode is None else retrieval_key(rule.trigger, episode.question)
