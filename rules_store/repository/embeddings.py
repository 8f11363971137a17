"""Vectors of rules, and the rows from which the index is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import NamedFromClause

from rules_store.database.schema import embeddings, rules
from rules_store.models.rules import (
    INDEXED_STATES,
    IndexRow,
    Polarity,
    Rule,
    RuleState,
    Vector,
    Vectors,
)
from rules_store.repository.rules import rule_of

TEXT, TRIGGER = "text", "trigger"
_IDS_AT_ONCE = 500  # bound parameters of one statement

_indexed = rules.c.state.in_([state.value for state in INDEXED_STATES])
_text = embeddings.alias("text_vector")
_trigger = embeddings.alias("trigger_vector")


async def insert_vectors(
    connection: AsyncConnection, seq: int, model: str, vectors: Vectors
) -> None:
    """Stores those that are given, for a rule that has none of them."""
    rows = [
        {"rule_seq": seq, "model": model, "kind": kind, "vector": vector.astype("<f4").tobytes()}
        for kind, vector in ((TEXT, vectors.text), (TRIGGER, vectors.trigger))
        if vector is not None
    ]
    if rows:
        await connection.execute(insert(embeddings), rows)


async def replace_vectors(
    connection: AsyncConnection, seq: int, model: str, vectors: Vectors
) -> None:
    """Stores those that are given in place of the ones of the same model and kind."""
    for kind, vector in ((TEXT, vectors.text), (TRIGGER, vectors.trigger)):
        if vector is not None:
            await connection.execute(
                delete(embeddings).where(
                    embeddings.c.rule_seq == seq,
                    embeddings.c.model == model,
                    embeddings.c.kind == kind,
                )
            )
    await insert_vectors(connection, seq, model, vectors)


async def forget(connection: AsyncConnection, seq: int, kind: str) -> None:
    """Deletes the vectors of one kind under every model, because the text has changed."""
    await connection.execute(
        delete(embeddings).where(embeddings.c.rule_seq == seq, embeddings.c.kind == kind)
    )


async def rows_of(
    connection: AsyncConnection, model: str, rule_ids: Sequence[str]
) -> list[IndexRow]:
    found: list[IndexRow] = []
    for start in range(0, len(rule_ids), _IDS_AT_ONCE):
        some = rule_ids[start : start + _IDS_AT_ONCE]
        statement = _with_vectors(model).where(rules.c.id.in_(some))
        found += [_index_row(row) for row in await connection.execute(statement)]
    return found


async def put_aside(
    connection: AsyncConnection, model: str, namespace: str, polarity: Polarity, limit: int
) -> list[IndexRow]:
    """The latest rules of a namespace that were retired or are in quarantine."""
    aside = rules.c.state.in_([RuleState.RETIRED.value, RuleState.QUARANTINED.value])
    statement = (
        _with_vectors(model)
        .where(rules.c.namespace == namespace, rules.c.polarity == polarity, aside)
        .order_by(rules.c.updated_at.desc(), rules.c.seq.desc())
        .limit(limit)
    )
    return [_index_row(row) for row in await connection.execute(statement)]


async def rows_after(
    connection: AsyncConnection, model: str, seq: int, limit: int
) -> list[IndexRow]:
    """The next active and candidate rules in order of their sequence number."""
    statement = (
        _with_vectors(model).where(rules.c.seq > seq, _indexed).order_by(rules.c.seq).limit(limit)
    )
    return [_index_row(row) for row in await connection.execute(statement)]


async def lacking(
    connection: AsyncConnection, model: str, dimension: int | None, limit: int
) -> list[Rule]:
    """Active and candidate rules without a usable vector of `model`, oldest first."""
    statement = _lacking(model, dimension, rules).order_by(rules.c.seq).limit(limit)
    return [rule_of(row) for row in await connection.execute(statement)]


def lacking_namespaces(model: str, dimension: int | None) -> Select[Any]:
    """Namespaces of what `lacking` finds."""
    return _lacking(model, dimension, rules.c.namespace).distinct()


async def count_indexable(
    connection: AsyncConnection, model: str, dimension: int | None
) -> tuple[int, int]:
    """(active and candidate rules, those of them that lack a vector of `model`)."""
    stored = await connection.scalar(select(func.count()).select_from(rules).where(_indexed))
    lacking = await connection.scalar(
        select(func.count()).select_from(_lacking(model, dimension, rules.c.seq).subquery())
    )
    return stored or 0, lacking or 0


def _with_vectors(model: str) -> Select[Any]:
    return select(
        rules.c.seq,
        rules.c.id,
        rules.c.namespace,
        rules.c.polarity,
        rules.c.state,
        rules.c.text,
        rules.c.trigger,
        _text.c.vector.label("text_vector"),
        _trigger.c.vector.label("trigger_vector"),
    ).select_from(
        rules.outerjoin(_text, _of(_text, model, TEXT)).outerjoin(
            _trigger, _of(_trigger, model, TRIGGER)
        )
    )


def _lacking(model: str, dimension: int | None, *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .select_from(
            rules.outerjoin(_text, _of(_text, model, TEXT, dimension)).outerjoin(
                _trigger, _of(_trigger, model, TRIGGER, dimension)
            )
        )
        .where(
            _indexed,
            or_(
                _text.c.rule_seq.is_(None),
                and_(rules.c.trigger != "", _trigger.c.rule_seq.is_(None)),
            ),
        )
    )


def _of(
    alias: NamedFromClause[Any], model: str, kind: str, dimension: int | None = None
) -> ColumnElement[bool]:
    joined = and_(alias.c.rule_seq == rules.c.seq, alias.c.model == model, alias.c.kind == kind)
    if dimension is not None:
        joined = and_(joined, func.length(alias.c.vector) == 4 * dimension)
    return joined


def _index_row(row: Row[Any]) -> IndexRow:
    return IndexRow(
        seq=row.seq,
        id=row.id,
        namespace=row.namespace,
        polarity=Polarity(row.polarity),
        state=RuleState(row.state),
        text=row.text,
        trigger=row.trigger,
        text_vector=_vector(row.text_vector),
        trigger_vector=_vector(row.trigger_vector),
    )


def _vector(blob: bytes | None) -> Vector | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f4")
