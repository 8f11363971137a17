"""What requests were given, and how well their answers did."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_or_replace
from rules_store.database.schema import choices
from rules_store.models.evidence import Outcome
from rules_store.models.examples import Given
from rules_store.models.rules import Vector


async def put(
    connection: AsyncConnection,
    episode_id: str,
    namespace: str,
    given: Given,
    outcome: Outcome,
    model: str,
    vector: Vector | None,
    at: datetime,
) -> None:
    """The outcome of one episode, in place of an earlier one. `vector`: unit, of its question."""
    values = {
        "episode_id": episode_id,
        "namespace": namespace,
        "given": given.value,
        "value": outcome.value,
        "weight": outcome.weight,
        "embedding_model": None if vector is None else model,
        "vector": None if vector is None else vector.astype("<f4").tobytes(),
        "updated_at": at,
    }
    replaced = [name for name in values if name not in ("episode_id", "namespace", "given")]
    statement = insert_or_replace(connection, choices, *replaced, by="episode_id")
    await connection.execute(statement, values)
