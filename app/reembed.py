"""Brings vectors for rules that have none of the current embedding model: after the model was
changed, or for rules that were written while the embedder was down."""

from __future__ import annotations

import asyncio

import structlog

from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.errors import StoreError
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
                    await store.add_embeddings(await _embedded(embedder, rules))
                    log.info("rules embedded", count=len(rules), model=embedder.name)
        except (StoreError, EmbeddingFailed) as error:
            log.warning("embedding of rules postponed", error=str(error))
        await asyncio.sleep(INTERVAL)


async def _embedded(embedder: Embedder, rules: list[Rule]) -> list[Embedded]:
    texts = [text for rule in rules for text in (rule.text, rule.trigger) if text]
    rows = iter(await embedder.embed(texts))
    return [
        Embedded(
            rule.id,
            rule.version,
            Vectors(text=next(rows), trigger=next(rows) if rule.trigger else None),
        )
        for rule in rules
    ]
