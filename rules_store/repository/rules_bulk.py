"""Many rules of one namespace at once, in few statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import embeddings, rules
from rules_store.models.rules import Rule, Vectors
from rules_store.repository.embeddings import TEXT, TRIGGER
from rules_store.repository.rules import rule_of

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
class Held:
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


async def rules_of(connection: AsyncConnection, namespace: str) -> dict[str, Held]:
    """All of its rules by id."""
    rows = await connection.execute(select(rules).where(rules.c.namespace == namespace))
    return {row.id: Held(row.seq, rule_of(row), row.text_hash) for row in rows}


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
