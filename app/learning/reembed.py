"""Brings vectors for rules and examples that have none of the current embedding model: after the
model was changed, or for what was written while the embedder was down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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

T = TypeVar("T", Rule, Example)
E = TypeVar("E", RuleEmbedding, ExampleEmbedding)


async def reembed(store: RuleStore, embedder: Embedder) -> None:
    """Runs until cancelled; looks every few seconds."""
    rules = _Waiting(
        "rules",
        find=store.rules.without_embedding,
        embed=lambda some: embedded(store, embedder, some),
        keep=store.rules.add_embeddings,
    )
    examples = _Waiting(
        "examples",
        find=store.examples.without_embedding,
        embed=lambda some: embedded_examples(embedder, some),
        keep=store.examples.add_embeddings,
    )
    while True:
        try:
            if embedder.ready:
                await rules.bring(embedder.name)
                await examples.bring(embedder.name)
        except (StoreError, EmbeddingFailed) as error:
            log.warning("embedding postponed", error=str(error))
        await asyncio.sleep(INTERVAL)


@dataclass(frozen=True)
class _Waiting(Generic[T, E]):
    """Rules or examples that wait for vectors."""

    what: str
    find: Callable[[int], Awaitable[list[T]]]
    """At most so many of them."""
    embed: Callable[[Sequence[T]], Awaitable[list[E]]]
    keep: Callable[[Sequence[E]], Awaitable[int]]
    refused: set[tuple[str, int]] = field(default_factory=set)
    """Id and version of what can't be embedded."""

    async def bring(self, model: str) -> None:
        """Vectors for all that wait. Raises StoreError, `EmbeddingFailed`."""
        while waiting := await self._next():
            done = await self._embedded_or_refused(waiting)
            await self.keep(done)
            log.info(f"{self.what} embedded", count=len(done), model=model)

    async def _next(self) -> list[T]:
        found = await self.find(BATCH + len(self.refused))
        return [each for each in found if (each.id, each.version) not in self.refused][:BATCH]

    async def _embedded_or_refused(self, waiting: Sequence[T]) -> list[E]:
        """Where not all can be embedded, one by one: one that never can must not stand in the way
        of the others. Raises `EmbeddingFailed` where none can."""
        try:
            return await self.embed(waiting)
        except EmbeddingFailed:
            if len(waiting) == 1:
                raise
        done: list[E] = []
        failed: list[T] = []
        for each in waiting:
            try:
                done += await self.embed([each])
            except EmbeddingFailed as error:
                log.warning("not embedded", what=self.what, id=each.id, error=str(error))
                failed.append(each)
        if not done:
            raise EmbeddingFailed(f"none of {len(waiting)} {self.what} can be embedded now")
        self.refused.update((each.id, each.version) for each in failed)
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
