"""Brings vectors for rules that have none of the current embedding model: after the model was
changed, or for rules that were written while the embedder was down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from app.keying import retrieval_key
from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.errors import StoreError, UnknownEpisode
from rules_store.store import RuleStore
from rules_store.types import Embedded, Rule, Vectors

log = structlog.get_logger(__name__)

BATCH = 64
INTERVAL = 5.0


async def reembed(store: RuleStore, embedder: Embedder) -> None:
    """Runs until cancelled; looks every few seconds."""
    while True:
        try:
            if embedder.ready:
                while rules := await store.rules_without_embedding(BATCH):
                    await store.add_embeddings(await embedded(store, embedder, rules))
                    log.info("rules embedded", count=len(rules), model=embedder.name)
        except (StoreError, EmbeddingFailed) as error:
            log.warning("embedding of rules postponed", error=str(error))
        await asyncio.sleep(INTERVAL)


async def embedded(store: RuleStore, embedder: Embedder, rules: Sequence[Rule]) -> list[Embedded]:
    """Vectors of their texts and triggers. Raises `EmbeddingFailed`."""
    keys = [await _key(store, rule) for rule in rules]
    texts = [text for rule, key in zip(rules, keys, strict=True) for text in (rule.text, key)]
    rows = iter(await embedder.embed([text for text in texts if text]))
    return [
        Embedded(
            rule.id, rule.version, Vectors(text=next(rows), trigger=next(rows) if key else None)
        )
        for rule, key in zip(rules, keys, strict=True)
    ]


async def _key(store: RuleStore, rule: Rule) -> str:
    """As for a new rule; without the episode that it came from, by its trigger alone."""
    if rule.source_episode is None:
        return rule.trigger
    try:
        episode = await store.get_episode(rule.source_episode)
    except UnknownEpisode:
        return rule.trigger
    return retrieval_key(rule.trigger, episode.question)
