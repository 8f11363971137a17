"""Brings vectors for rules that have none of the current embedding model: after the model was
changed, or for rules that were written while the embedder was down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from app.learning.drafts import retrieval_key
from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.errors import StoreError
from rules_store.models.rules import Rule, RuleEmbedding, Vectors
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

BATCH = 64
INTERVAL = 5.0


async def reembed(store: RuleStore, embedder: Embedder) -> None:
    """Runs until cancelled; looks every few seconds."""
    refused: set[tuple[str, int]] = set()
    while True:
        try:
            if embedder.ready:
                while rules := await _waiting(store, refused):
                    done = await _embedded_or_refused(store, embedder, rules, refused)
                    await store.rules.add_embeddings(done)
                    log.info("rules embedded", count=len(done), model=embedder.name)
        except (StoreError, EmbeddingFailed) as error:
            log.warning("embedding of rules postponed", error=str(error))
        await asyncio.sleep(INTERVAL)


async def _waiting(store: RuleStore, refused: set[tuple[str, int]]) -> list[Rule]:
    found = await store.rules.without_embedding(BATCH + len(refused))
    return [rule for rule in found if (rule.id, rule.version) not in refused][:BATCH]


async def _embedded_or_refused(
    store: RuleStore, embedder: Embedder, rules: Sequence[Rule], refused: set[tuple[str, int]]
) -> list[RuleEmbedding]:
    """Where not all can be embedded, one by one: a rule that never can must not stand in the way
    of the others. Raises `EmbeddingFailed` where none can."""
    try:
        return await embedded(store, embedder, rules)
    except EmbeddingFailed:
        if len(rules) == 1:
            raise
    done: list[RuleEmbedding] = []
    failed: list[Rule] = []
    for rule in rules:
        try:
            done += await embedded(store, embedder, [rule])
        except EmbeddingFailed as error:
            log.warning("rule not embedded", rule=rule.id, error=str(error))
            failed.append(rule)
    if not done:
        raise EmbeddingFailed(f"none of {len(rules)} rules can be embedded now")
    refused.update((rule.id, rule.version) for rule in failed)
    return done


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
