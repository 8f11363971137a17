"""Many rules of one namespace at once, in few statements: pruned, merged, exported, imported,
rolled back, looked for by meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import and_, bindparam, delete, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import embeddings, rules, standings
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleState, Vector, Vectors
from rules_store.repository.embeddings import TEXT, TRIGGER
from rules_store.repository.rules import conditions, rule_of

_SET_HASH = (
    update(rules).where(rules.c.id == bindparam("own")).values(text_hash=bindparam("new_hash"))
)
_UPDATE = (
    update(rules)
    .where(rules.c.id == bindparam("own"))
    .values(
        polarity=bindparam("new_polarity"),
        state=bindparam("new_state"),
        text=bindparam("new_text"),
        trigger=bindparam("new_trigger"),
        domain=bindparam("new_domain"),
        frequency=bindparam("new_frequency"),
        version=bindparam("new_version"),
        reason=bindparam("new_reason"),
        updated_at=bindparam("at"),
    )
)
_UPDATE_TEXT = _UPDATE.values(text_hash=bindparam("new_hash"))
_FORGET = delete(embeddings).where(
    embeddings.c.rule_seq == bindparam("seq"), embeddings.c.kind == bindparam("of_kind")
)


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule as it is stored."""

    seq: int
    rule: Rule
    text_hash: str


@dataclass(frozen=True, slots=True, eq=False)
class NewVectors:
    """What takes the place of a rule's vectors, where its `text` or `trigger` has changed."""

    seq: int
    text: bool
    trigger: bool
    vectors: Vectors


async def rules_of(connection: AsyncConnection, namespace: str) -> dict[str, StoredRule]:
    """All of its rules by id."""
    rows = await connection.execute(select(rules).where(rules.c.namespace == namespace))
    return {row.id: StoredRule(row.seq, rule_of(row), row.text_hash) for row in rows}


async def set_hashes(connection: AsyncConnection, hashes: Mapping[str, str]) -> None:
    """By the rules' ids. Raises IntegrityError where two rules would be the same."""
    if hashes:
        rows = [{"own": id, "new_hash": value} for id, value in hashes.items()]
        await connection.execute(_SET_HASH, rows)


async def update_rules(
    connection: AsyncConnection,
    changed: Sequence[Rule],
    hashes: Mapping[str, str] | None = None,
) -> None:
    """Writes what can change of rules, but for their exposures. `hashes` (of their texts, by id)
    are needed where texts change. Raises IntegrityError where two rules would be the same."""
    rows = [
        {
            "own": rule.id,
            "new_polarity": rule.polarity,
            "new_state": rule.state,
            "new_text": rule.text,
            "new_trigger": rule.trigger,
            "new_domain": rule.domain,
            "new_frequency": rule.frequency,
            "new_version": rule.version,
            "new_reason": rule.reason,
            "at": rule.updated_at,
        }
        for rule in changed
    ]
    if rows and hashes is None:
        await connection.execute(_UPDATE, rows)
    elif rows and hashes is not None:
        hashed = [
            {**row, "new_hash": hashes[rule.id]} for row, rule in zip(rows, changed, strict=True)
        ]
        await connection.execute(_UPDATE_TEXT, hashed)


async def replace_vectors(
    connection: AsyncConnection, model: str, items: Sequence[NewVectors]
) -> None:
    """Forgets the vectors of changed texts under every model and stores those that are given."""
    gone, new = [], []
    for item in items:
        for kind, changed, vector in (
            (TEXT, item.text, item.vectors.text),
            (TRIGGER, item.trigger, item.vectors.trigger),
        ):
            if not changed:
                continue
            gone.append({"seq": item.seq, "of_kind": kind})
            if vector is not None:
                new.append(
                    {
                        "rule_seq": item.seq,
                        "model": model,
                        "kind": kind,
                        "vector": vector.astype("<f4").tobytes(),
                    }
                )
    if gone:
        await connection.execute(_FORGET, gone)
    if new:
        await connection.execute(insert(embeddings), new)


_AT_ONCE = 500  # bound parameters of one statement


@dataclass(frozen=True, slots=True)
class PrunableRule:
    """What a prune looks at of an active rule."""

    seq: int
    polarity: Polarity
    frequency: int
    exposures: int
    lift: float
    """Zero where nothing has been measured."""


async def active(
    connection: AsyncConnection, namespace: str, written_before: datetime | None = None
) -> list[PrunableRule]:
    """Active rules, oldest first."""
    statement = (
        select(
            rules.c.seq,
            rules.c.polarity,
            rules.c.frequency,
            rules.c.exposures,
            func.coalesce(standings.c.lift, 0.0),
        )
        .join_from(rules, standings, standings.c.item_id == rules.c.id, isouter=True)
        .where(rules.c.namespace == namespace, rules.c.state == RuleState.ACTIVE)
        .order_by(rules.c.seq)
    )
    if written_before is not None:
        statement = statement.where(rules.c.created_at < written_before)
    rows = await connection.execute(statement)
    return [PrunableRule(seq, Polarity(polarity), *numbers) for seq, polarity, *numbers in rows]


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


async def numbers_of(connection: AsyncConnection, rule_ids: Sequence[str]) -> dict[str, int]:
    """Id -> sequence number of those that are there."""
    found: dict[str, int] = {}
    for start in range(0, len(rule_ids), _AT_ONCE):
        some = rule_ids[start : start + _AT_ONCE]
        rows = await connection.execute(select(rules.c.id, rules.c.seq).where(rules.c.id.in_(some)))
        found.update({row.id: row.seq for row in rows})
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
            "written_by": rule.written_by,
        }
        for text_hash, rule in new
    ]
    if not rows:
        return
    await connection.execute(insert(rules), rows)
    numbered = await numbers_of(connection, [rule.id for _, rule in new])
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
