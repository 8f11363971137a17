"""What the admin endpoints share: bounds of a list, and what a request's texts become."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from app.exceptions import NotFound
from app.settings import NAMESPACE_PATTERN
from app.state import AppState
from app.upstream.embeddings import EmbeddingFailed
from rules_store.types import Vectors

Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(max_length=500)]
Namespace = Annotated[str | None, Query(pattern=NAMESPACE_PATTERN)]


async def known_namespace(state: AppState, namespace: str | None) -> None:
    if namespace is not None and not await state.store.namespace_exists(namespace):
        raise NotFound(
            f"There is no namespace '{namespace}'", param="namespace", code="namespace_not_found"
        )


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
