"""What requests were given, and how well their answers did."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_or_replace
from rules_store.database.schema import choices
from rules_store.models.evidence import IndexedChoice, Outcome
from rules_store.models.examples import Given
from rules_store.models.rules import Vector

_CHANGED = (
    select(choices)
    .where(choices.c.updated_at >= bindparam("since"))
    .order_by(choices.c.updated_at, choices.c.seq)
)
_RANKED = select(
    choices,
    func.row_number()
    .over(partition_by=choices.c.namespace, order_by=choices.c.updated_at.desc())
    .label("place"),
).subquery()
_LATEST = (
    select(_RANKED)
    .where(_RANKED.c.place <= bindparam("most"))
    .order_by(_RANKED.c.updated_at, _RANKED.c.seq)
)


async def put(
    connection: AsyncConnection,
    episode_id: str,
    namespace: str,
    given: Given,
    outcome: Outcome,
    model: str,
    vector: Vector | None,
    at: datetime,
    key_id: str | None = None,
) -> None:
    """The outcome of one episode, in place of an earlier one. `vector`: unit, of its question;
    `key_id`: who asked it."""
    values = {
        "episode_id": episode_id,
        "namespace": namespace,
        "given": given.value,
        "value": outcome.value,
        "weight": outcome.weight,
        "embedding_model": None if vector is None else model,
        "vector": None if vector is None else vector.astype("<f4").tobytes(),
        "updated_at": at,
        "key_id": key_id,
    }
    replaced = [
        name for name in values if name not in ("episode_id", "namespace", "given", "key_id")
    ]
    statement = insert_or_replace(connection, choices, *replaced, by="episode_id")
    await connection.execute(statement, values)


async def changed_since(
    connection: AsyncConnection, model: str, since: datetime | None, most: int
) -> list[IndexedChoice]:
    """Those that changed at or after a moment, the oldest change first; for None the latest `most`
    of each namespace. Vectors are those of this embedding model."""
    asked = (_LATEST, {"most": most}) if since is None else (_CHANGED, {"since": since})
    return [
        IndexedChoice(
            row.episode_id,
            row.namespace,
            Given(row.given),
            row.value,
            row.weight,
            np.frombuffer(row.vector, dtype="<f4") if row.embedding_model == model else None,
            row.updated_at,
        )
        for row in await connection.execute(*asked)
    ]
