"""Explored questions."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_unless_there
from rules_store.database.schema import precedents, trials
from rules_store.models.evidence import IndexedPrecedent, Precedent, Reference

_FIT = precedents.c.reference.is_not(None) & precedents.c.answer.is_not(None)
_PLACES = (
    select(
        *(precedents.c[each] for each in ("seq", "episode_id", "namespace", "vector", "agreement")),
        _FIT.label("fit"),
    )
    .where(precedents.c.seq > bindparam("last"), precedents.c.embedding_model == bindparam("model"))
    .order_by(precedents.c.seq)
)


async def add(
    connection: AsyncConnection,
    model: str,
    new: Precedent,
    at: datetime,
    keep: int,
    *,
    asker: str | None,
    labeller: str | None = None,
) -> None:
    """Nothing where the episode has one. Of each namespace the latest `keep` stay. `asker`: whose
    question it is; `labeller`: who gave the label, where there is one."""
    values = {
        "episode_id": new.episode_id,
        "namespace": new.namespace,
        "embedding_model": model,
        "vector": new.vector.astype("<f4").tobytes(),
        "agreement": new.agreement,
        "observation": new.observation,
        "answer": new.answer,
        "reference": new.reference,
        "reference_kind": new.reference_kind.value,
        "created_at": at,
        "key_id": asker,
        "label_key_id": labeller,
    }
    statement = insert_unless_there(connection, precedents)
    if (await connection.execute(statement, values)).rowcount != 1:
        return
    oldest = await connection.scalar(
        select(precedents.c.seq)
        .where(precedents.c.namespace == new.namespace)
        .order_by(precedents.c.seq.desc())
        .offset(keep)
        .limit(1)
    )
    if oldest is not None:
        await connection.execute(
            delete(precedents).where(
                precedents.c.namespace == new.namespace, precedents.c.seq <= oldest
            )
        )


async def places_after(connection: AsyncConnection, model: str, seq: int) -> list[IndexedPrecedent]:
    """Those of this embedding model with a later number, oldest first."""
    return [
        IndexedPrecedent(
            row.seq,
            row.episode_id,
            row.namespace,
            np.frombuffer(row.vector, dtype="<f4"),
            row.agreement,
            bool(row.fit),
        )
        for row in await connection.execute(_PLACES, {"last": seq, "model": model})
    ]


async def find(connection: AsyncConnection, episode_id: str) -> Precedent | None:
    statement = select(precedents).where(precedents.c.episode_id == episode_id)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return None
    return Precedent(
        episode_id=row.episode_id,
        namespace=row.namespace,
        vector=np.frombuffer(row.vector, dtype="<f4"),
        agreement=row.agreement,
        observation=row.observation,
        answer=row.answer,
        reference=row.reference,
        reference_kind=Reference(row.reference_kind),
        key_id=row.key_id,
        label_key_id=row.label_key_id,
    )


async def set_label(
    connection: AsyncConnection, episode_id: str, label: str, labeller: str | None
) -> None:
    """A label takes the place of what the exploration took for right."""
    await connection.execute(
        update(precedents)
        .where(precedents.c.episode_id == episode_id)
        .values(reference=label, reference_kind=Reference.LABEL.value, label_key_id=labeller)
    )


async def tried(connection: AsyncConnection, rule_id: str, text_hash: str) -> set[str]:
    """Episodes on which these words of a rule have been tried."""
    statement = select(trials.c.episode_id).where(
        trials.c.rule_id == rule_id, trials.c.text_hash == text_hash
    )
    return set(await connection.scalars(statement))
