"""Rules of a namespace as they are pruned, merged, exported, imported and looked for by meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import and_, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import embeddings, rules
from rules_store.models.rules import (
    Polarity,
    Rule,
    RuleFilter,
    RuleState,
    Vector,
    Vectors,
)
from rules_store.repository.embeddings import TEXT, TRIGGER
from rules_store.repository.rules import conditions, rule_of
from rules_store.worth_tables import standings

_AT_ONCE = 500  # bound parameters of one statement


@dataclass(frozen=True, slots=True)
class Standing:
    """What a prune looks at of an active rule."""

    seq: int
    polarity: Polarity
    frequency: int
    exposures: int
    lift: float
    """Zero where nothing has been measured."""


async def active(
    connection: AsyncConnection, namespace: str, written_before: datetime | None = None
) -> list[Standing]:
    """Active rules, oldest first."""
    statement = (
        select(
            rules.c.seq,
            rules.c.polarity,
            rules.c.frequency,
            rules.c.exposures,
            func.coalesce(standings.c.lift, 0.0),
        )
        .join_from(rules, standings, standings.c.rule_id == rules.c.id, isouter=True)
        .where(rules.c.namespace == namespace, rules.c.state == RuleState.ACTIVE)
        .order_by(rules.c.seq)
    )
    if written_before is not None:
        statement = statement.where(rules.c.created_at < written_before)
    rows = await connection.execute(statement)
    return [Standing(seq, Polarity(polarity), *numbers) for seq, polarity, *numbers in rows]


async def versions(
    connection: AsyncConnection, rule_ids: Sequence[str]
) -> dict[str, tuple[int, RuleState]]:
    """Id -> version and state of those that are there."""
    found: dict[str, tuple[int, RuleState]] = {}
    for start in range(0, len(rule_ids), _AT_ONCE):
        some = rule_ids[start : start + _AT_ONCE]
        rows = await connection.execute(
            select(rules.c.id, rules.c.version, rules.c.state).where(rules.c.id.in_(some))
        )
        found.update({row.id: (row.version, RuleState(row.state)) for row in rows})
    return found


async def by_ids(connection: AsyncConnection, rule_ids: Sequence[str]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for start in range(0, len(rule_ids), _AT_ONCE):
        some = rule_ids[start : start + _AT_ONCE]
        for row in await connection.execute(select(rules).where(rules.c.id.in_(some))):
            found[row.id] = rule_of(row)
    return found


async def batch(
    connection: AsyncConnection, where: RuleFilter, after: int, limit: int
) -> list[tuple[int, Rule]]:
    """The next rules in order of their sequence numbers."""
    statement = (
        select(rules)
        .where(rules.c.seq > after, and_(true(), *conditions(where, connection.dialect.name)))
        .order_by(rules.c.seq)
        .limit(limit)
    )
    return [(row.seq, rule_of(row)) for row in await connection.execute(statement)]


async def vectors_of(
    connection: AsyncConnection, model: str, seqs: Sequence[int]
) -> dict[int, Vectors]:
    """By sequence number; rules that have none of this model are left out."""
    found: dict[int, dict[str, Vector]] = {}
    for start in range(0, len(seqs), _AT_ONCE):
        some = seqs[start : start + _AT_ONCE]
        rows = await connection.execute(
            select(embeddings.c.rule_seq, embeddings.c.kind, embeddings.c.vector).where(
                embeddings.c.rule_seq.in_(some), embeddings.c.model == model
            )
        )
        for row in rows:
            found.setdefault(row.rule_seq, {})[row.kind] = np.frombuffer(row.vector, dtype="<f4")
    return {
        seq: Vectors(text=kinds.get(TEXT), trigger=kinds.get(TRIGGER))
        for seq, kinds in found.items()
    }


async def resting(
    connection: AsyncConnection,
    model: str,
    namespace: str | None,
    states: Sequence[RuleState],
    dimension: int,
    limit: int,
) -> list[tuple[int, Vector]]:
    """(seq, vector) of rules in states that the index does not hold; the newest `limit` vectors."""
    statement = (
        select(embeddings.c.rule_seq, embeddings.c.vector)
        .join(rules, rules.c.seq == embeddings.c.rule_seq)
        .where(
            rules.c.state.in_(list(states)),
            embeddings.c.model == model,
            func.length(embeddings.c.vector) == 4 * dimension,
        )
        .order_by(embeddings.c.rule_seq.desc())
        .limit(limit)
    )
    if namespace is not None:
        statement = statement.where(rules.c.namespace == namespace)
    rows = await connection.execute(statement)
    return [(row.rule_seq, np.frombuffer(row.vector, dtype="<f4")) for row in rows]


async def by_seqs(connection: AsyncConnection, seqs: Sequence[int]) -> dict[int, Rule]:
    found: dict[int, Rule] = {}
    for start in range(0, len(seqs), _AT_ONCE):
        some = seqs[start : start + _AT_ONCE]
        for row in await connection.execute(select(rules).where(rules.c.seq.in_(some))):
            found[row.seq] = rule_of(row)
    return found


async def with_texts(
    connection: AsyncConnection, namespace: str, hashes: Sequence[str]
) -> dict[tuple[Polarity, str], str]:
    """(polarity, hash of the text) -> id of the namespace's rule that has it."""
    found: dict[tuple[Polarity, str], str] = {}
    for start in range(0, len(hashes), _AT_ONCE):
        rows = await connection.execute(
            select(rules.c.polarity, rules.c.text_hash, rules.c.id).where(
                rules.c.namespace == namespace,
                rules.c.text_hash.in_(hashes[start : start + _AT_ONCE]),
            )
        )
        found.update({(Polarity(row.polarity), row.text_hash): row.id for row in rows})
    return found


async def insert_all(
    connection: AsyncConnection,
    new: Sequence[tuple[str, Rule]],
    model: str,
    vectors: Mapping[str, Vectors],
) -> None:
    """Rules with the hashes of their texts, and vectors by rule id.
    Raises IntegrityError where an id or a text is taken."""
    rows: list[dict[str, Any]] = [
        {
            "id": rule.id,
            "namespace": rule.namespace,
            "polarity": rule.polarity,
            "state": rule.state,
            "text": rule.text,
            "trigger": rule.trigger,
            "domain": rule.domain,
            "frequency": rule.frequency,
            "exposures": rule.exposures,
            "source_episode": rule.source_episode,
            "version": rule.version,
            "reason": rule.reason,
            "text_hash": text_hash,
            "created_at": rule.created_at,
            "updated_at": rule.updated_at,
        }
        for text_hash, rule in new
    ]
    if not rows:
        return
    await connection.execute(insert(rules), rows)
    ids = [rule.id for _, rule in new]
    numbered: dict[str, int] = {}
    for start in range(0, len(ids), _AT_ONCE):
        statement = select(rules.c.id, rules.c.seq).where(
            rules.c.id.in_(ids[start : start + _AT_ONCE])
        )
        numbered.update({row.id: row.seq for row in await connection.execute(statement)})
    values = [
        {"rule_seq": numbered[id], "model": model, "kind": kind, "vector": _bytes(vector)}
        for id, given in vectors.items()
        if id in numbered
        for kind, vector in ((TEXT, given.text), (TRIGGER, given.trigger))
        if vector is not None
    ]
    if values:
        await connection.execute(insert(embeddings), values)


def _bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()
