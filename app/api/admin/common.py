"""What the admin endpoints share: bounds of a list, and what a request's texts become."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, TypeVar

from fastapi import Query

from app.api.dependencies import unknown_namespace
from app.api.schemas.rules import ActingName, Rule, VersionedWrite
from app.exceptions import Overloaded
from app.settings import NAMESPACE_PATTERN
from app.upstream.embeddings import EmbeddingFailed
from app.wiring.container import AppState
from rules_store.models.evidence import Standing
from rules_store.models.rules import Rule as StoredRule
from rules_store.models.rules import Vector, Vectors

T = TypeVar("T")

EMBEDDING_TIMEOUT = 10.0
"""Seconds that a person waits, not a chat request."""

Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(max_length=500)]
ActorParameter = Annotated[ActingName, Query()]
SimilarTo = Annotated[
    str,
    # Each may take 12 bytes of an address, of which the server reads 64 KB.
    Query(min_length=1, max_length=5000, description="What is looked for is near it in meaning"),
]
Namespace = Annotated[str | None, Query(pattern=NAMESPACE_PATTERN)]


async def known_namespace(state: AppState, namespace: str | None) -> None:
    if namespace is not None and not await state.store.namespaces.exists(namespace):
        raise unknown_namespace(namespace)


async def answered(state: AppState, rule: StoredRule) -> Rule:
    """The rule with what is known of its worth."""
    return Rule.of(rule, await standing_of(state, rule))


async def standing_of(state: AppState, rule: StoredRule) -> Standing | None:
    return (await state.store.evidence.standings_of([rule.id])).get(rule.id)


async def standings_of(state: AppState, rules: Iterable[StoredRule]) -> dict[str, Standing]:
    return await state.store.evidence.standings_of([rule.id for rule in rules])


async def vectors_of(state: AppState, text: str | None, trigger: str | None) -> Vectors:
    """Vectors of what is given. While the embedder is down the rule is written without; the
    background brings them later."""
    texts = [part for part in (text, trigger) if part]
    if not texts or not state.embedder.ready:
        return Vectors()
    try:
        rows = list(await state.embedder.embed(texts))
    except EmbeddingFailed:
        return Vectors()
    return Vectors(text=rows.pop(0) if text else None, trigger=rows.pop(0) if trigger else None)


async def embedding_of(state: AppState, text: str) -> Vector:
    """Raises `Overloaded` while there is no embedder to ask."""
    if not state.embedder.ready:
        raise _without_embedder("it is not loaded")
    try:
        async with asyncio.timeout(EMBEDDING_TIMEOUT):
            row: Vector = (await state.embedder.embed([text]))[0]
    except TimeoutError:
        raise _without_embedder("it does not answer in time") from None
    except EmbeddingFailed as error:
        raise _without_embedder(error.message) from error
    return row


async def moved(step: Callable[..., Awaitable[T]], item_id: str, body: VersionedWrite) -> T:
    """What one of the store's steps makes of a rule or an example of the version that the body
    expects."""
    return await step(item_id, change=body.change, expected_version=body.expected_version)


def _without_embedder(why: str) -> Overloaded:
    return Overloaded(
        f"The embedding model can't be used now: {why}", code="embedder_unavailable", retry_after=5
    )
