"""What embedding models made of the probes, so that another one behind the same name is noticed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_or_replace
from rules_store.database.schema import embedders, examples, rules
from rules_store.models.rules import RuleState
from rules_store.repository import embeddings as vectors
from rules_store.repository.examples import embedded

Probes = npt.NDArray[np.float32]
"""Unit vectors of the probes, shape (n, dimension)."""


@dataclass(frozen=True, slots=True)
class KnownEmbedder:
    """`generation`: how often it has changed."""

    generation: int
    probes: Probes


async def find(connection: AsyncConnection, model: str) -> KnownEmbedder | None:
    row = (
        await connection.execute(select(embedders).where(embedders.c.model == model))
    ).one_or_none()
    if row is None:
        return None
    probes = np.frombuffer(row.probes, dtype="<f4").reshape(-1, row.dimension)
    return KnownEmbedder(row.generation, probes)


async def keep(connection: AsyncConnection, model: str, known: KnownEmbedder) -> None:
    """In place of what was known of it."""
    await connection.execute(
        insert_or_replace(connection, embedders, "generation", "dimension", "probes"),
        {
            "model": model,
            "generation": known.generation,
            "dimension": known.probes.shape[1],
            "probes": known.probes.astype("<f4").tobytes(),
        },
    )


async def unembedded(connection: AsyncConnection, model: str, dimension: int | None) -> set[str]:
    """Namespaces with active rules or examples that have no vector of this model."""
    of_rules = vectors.lacking_namespaces(model, dimension).where(
        rules.c.state == RuleState.ACTIVE.value
    )
    of_examples = (
        select(examples.c.namespace)
        .where(examples.c.state == RuleState.ACTIVE.value, ~embedded(model, dimension))
        .distinct()
    )
    return {*await connection.scalars(of_rules), *await connection.scalars(of_examples)}
