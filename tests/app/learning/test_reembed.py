"""Rules and examples that wait for vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from app.learning.reembed import PROBE_INTERVAL, PROBES, Reembedding
from app.upstream.embeddings import EmbeddingFailed, Vectors
from rules_store.models.events import Change
from rules_store.models.examples import NewExample, Trust
from rules_store.models.rules import NewRule, Polarity
from rules_store.models.rules import Vectors as RuleVectors
from rules_store.store import RuleStore
from tests.fakes import HashEmbedder


class Picky(HashEmbedder):
    """Refuses any texts among which is one about yaks."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if any("yak" in text for text in texts):
            raise EmbeddingFailed("too long")
        return await super().embed(texts)


async def test_what_cannot_be_embedded_stands_in_nobodys_way(tmp_path: Path) -> None:
    embedder = Picky()
    store = await RuleStore.open(
        f"sqlite:///{tmp_path / 'store.db'}", embedding_model=embedder.name, dimension=384
    )
    await store.namespaces.ensure("default")
    for text in ("Shave the yak first.", "Count the cows.", "Count the sheep."):
        new = NewRule("default", Polarity.POSITIVE, text)
        await store.rules.create(new, RuleVectors(), change=Change("test", "test"))
        example = NewExample("default", text, "Done.", Trust.LABEL)
        await store.examples.create(example, None, change=Change("test", "test"))
    running = asyncio.create_task(Reembedding(store, embedder).run())
    async with asyncio.timeout(10):
        while store.rules_indexed < 2 or (await store.parity()).examples_unembedded > 1:
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [rule.text for rule in await store.rules.without_embedding()] == ["Shave the yak first."]
    waiting = await store.examples.without_embedding()
    assert [example.question for example in waiting] == ["Shave the yak first."]
    (vector,) = await embedder.embed(["Count the cows."])
    assert store.search_examples("default", vector, 1)[0].question == "Count the cows."
    await store.close()


async def test_examples_are_embedded_beside_the_rules(tmp_path: Path) -> None:
    embedder = Picky()
    store = await RuleStore.open(
        f"sqlite:///{tmp_path / 'store.db'}", embedding_model=embedder.name, dimension=384
    )
    await store.namespaces.ensure("default")
    # A rule that can't be embedded keeps no example waiting.
    yak = NewRule("default", Polarity.POSITIVE, "Shave the yak first.")
    await store.rules.create(yak, RuleVectors(), change=Change("test", "test"))
    for question in ("Is the yak shaved?", "How many cows?", "How many sheep?"):
        new = NewExample("default", question, "42", Trust.LABEL)
        await store.examples.create(new, None, change=Change("test", "test"))
    running = asyncio.create_task(Reembedding(store, embedder).run())
    async with asyncio.timeout(10):
        while (await store.parity()).examples_indexed < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    left = await store.examples.without_embedding()
    assert [example.question for example in left] == ["Is the yak shaved?"]
    (vector,) = await embedder.embed(["How many cows?"])
    assert store.search_examples("default", vector, 1)[0].question == "How many cows?"
    await store.close()


class Changing(HashEmbedder):
    """Another model from one moment to the next, of the same size or of another."""

    shift = 0

    async def _made(self, texts: Sequence[str]) -> Vectors:
        return np.roll(await super()._made(texts), self.shift, axis=1)


@pytest.mark.parametrize("dimension", [384, 96])
async def test_another_model_behind_the_same_name_is_noticed_and_all_is_embedded_anew(
    tmp_path: Path, dimension: int
) -> None:
    embedder = Changing()
    url, now = f"sqlite:///{tmp_path / 'store.db'}", 0.0
    store = await RuleStore.open(url, embedding_model=embedder.name)
    looking = Reembedding(store, embedder, lambda: now)
    await store.namespaces.ensure("default")
    (old,) = await embedder.embed(["Count the cows."])
    rule = NewRule("default", Polarity.POSITIVE, "Count the cows.")
    await store.rules.create(rule, RuleVectors(text=old), change=Change("test", "test"))
    example = NewExample("default", "How many cows?", "Two.", Trust.LABEL)
    await store.examples.create(example, old, change=Change("test", "test"))
    await looking.look()
    assert embedder.probes == 1
    assert not looking.changed
    await looking.look()
    assert embedder.probes == 1, "not before its time"

    embedder.shift, embedder.dimension = 7, dimension
    (new,) = await embedder.embed(["Count the cows."])
    now += PROBE_INTERVAL
    embedder.failure = EmbeddingFailed("away")
    await looking.look()
    assert looking.failure == "away"
    embedder.failure = None
    hits = await _while_embedding(store, looking)
    assert hits == {"default"}, "named while it is not found"
    assert not looking.changed
    assert store.embedding_model == "hash-384#1"
    assert store.search("default", new, Polarity.POSITIVE, 1).hits[0].similarity > 0.99
    (found,) = await embedder.embed(["How many cows?"])
    assert store.search_examples("default", found, 1)[0].answer == "Two."
    assert not store.is_incomplete("default")
    await store.close()
    # A restart knows which vectors are the present model's.
    again = await RuleStore.open(url, embedding_model=embedder.name)
    assert again.rules_indexed == 1
    assert not await again.embedder.note(await embedder.embed_anew(PROBES))
    await again.close()


async def _while_embedding(store: RuleStore, looking: Reembedding) -> set[str]:
    """What was named as incomplete while all was embedded anew."""
    seen: set[str] = set()
    look = store.embedder.look

    async def noted() -> frozenset[str]:
        found = await look()
        seen.update(found)
        return found

    store.embedder.look = noted  # type: ignore[method-assign]
    await looking.look()
    return seen


async def test_what_another_process_noticed_is_taken_up(tmp_path: Path) -> None:
    embedder = Changing()
    url = f"sqlite:///{tmp_path / 'store.db'}"
    one = await RuleStore.open(url, embedding_model=embedder.name)
    other = await RuleStore.open(url, embedding_model=embedder.name)
    assert not await one.embedder.note(await embedder.embed_anew(PROBES))
    assert not await other.embedder.follow()
    embedder.shift = 3
    assert await one.embedder.note(await embedder.embed_anew(PROBES))
    assert await other.embedder.follow()
    assert other.embedding_model == one.embedding_model == "hash-384#1"
    assert not await other.embedder.follow()
    await one.close()
    await other.close()
