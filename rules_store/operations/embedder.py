"""The embedding model behind its name: noticed when it becomes another one, and what has no vector
of it yet."""

from __future__ import annotations

import logging

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.operations.context import StoreContext
from rules_store.repository import embedders
from rules_store.repository.embedders import KnownEmbedder, Probes

logger = logging.getLogger(__name__)

SAME_COSINE = 0.98
"""Least cosine of two vectors of one text by the same model: servers round, and batch."""


class EmbedderOperations:
    """`store.embedder`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self.unembedded: frozenset[str] = frozenset()
        """Namespaces with active rules or examples that no search finds, as of the last `look`."""

    async def note(self, probes: Probes) -> bool:
        """What the model makes of the probes now. Where that is not what it made of them before, it
        is another model: its vectors are kept apart from here on, and all that is stored waits for
        new ones (`rules.without_embedding`); then True."""
        name = self._context.model_name

        async def compare(connection: AsyncConnection) -> KnownEmbedder:
            known = await embedders.find(connection, name)
            if known is not None and _same(known.probes, probes):
                return known
            found = KnownEmbedder(0 if known is None else known.generation + 1, probes)
            await embedders.keep(connection, name, found)
            return found

        found = await self._context.database.transact(compare)
        return await self._follow(found)

    async def follow(self) -> bool:
        """Takes up what another process has noticed; whether there was something."""
        async with self._context.database.read() as connection:
            known = await embedders.find(connection, self._context.model_name)
        return known is not None and await self._follow(known)

    async def look(self) -> frozenset[str]:
        """Which namespaces have something that waits for a vector."""
        context = self._context
        async with context.database.read() as connection:
            found = await embedders.unembedded(
                connection, context.embedding_model, context.caches.dimension
            )
        self.unembedded = frozenset(found)
        return self.unembedded

    async def _follow(self, known: KnownEmbedder) -> bool:
        model = generation_name(self._context.model_name, known.generation)
        if model == self._context.embedding_model:
            return False
        logger.warning(
            "the embedding model behind %s has changed: rules and examples are embedded anew",
            self._context.model_name,
        )
        self._context.embedding_model = model
        await self._context.caches.change_model(model)
        return True


def generation_name(model: str, generation: int) -> str:
    """Under which vectors are kept."""
    return f"{model}#{generation}" if generation else model


def _same(known: Probes, probes: Probes) -> bool:
    if known.shape != probes.shape:
        return False
    return bool((np.sum(known * probes, axis=1) >= SAME_COSINE).all())
