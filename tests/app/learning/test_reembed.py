"""Rules and examples that wait for vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.learning.reembed import reembed
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
    running = asyncio.create_task(reembed(store, embedder))
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
    running = asyncio.create_task(reembed(store, embedder))
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
