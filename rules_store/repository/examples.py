"""Examples: rows with the vector of their question, and the conflicts between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import contains
from rules_store.database.json_codec import storable
from rules_store.database.schema import events, examples, links, standings
from rules_store.models.evidence import LinkKind
from rules_store.models.examples import Example, ExampleFilter, IndexedExample, Trust
from rules_store.models.paging import Position
from rules_store.models.rules import RuleSort, RuleState, Vector
from rules_store.repository.events import made_by_learning
from rules_store.repository.orders import lifted, orders

_AT_ONCE = 500  # bound parameters of one statement
_ACTIVE = examples.c.state == RuleState.ACTIVE.value
_ORDERS = orders(examples)
_WITHOUT_VECTOR = [column for column in examples.c if column is not examples.c.vector]
_TRUST_RANK = case({each.value: rank for rank, each in enumerate(Trust)}, value=examples.c.trust)
_LEARNED = made_by_learning(events.c.example_id, examples.c.id, "example.created")
_CONFLICT = links.c.kind == LinkKind.CONTRADICTS.value
_one, _other = examples.alias("one"), examples.alias("other")

_UPDATE = (
    update(examples)
    .where(examples.c.id == bindparam("own"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "state",
                "question",
                "answer",
                "label",
                "domain",
                "instructions",
                "trust",
                "version",
                "reason",
                "verified_at",
                "expires_at",
                "updated_at",
            )
        }
    )
)
_SET_HASH = (
    update(examples).where(examples.c.id == bindparam("own")).values(text_hash=bindparam("hash"))
)
_SET_VECTOR = (
    update(examples)
    .where(examples.c.seq == bindparam("own"))
    .values(embedding_model=bindparam("new_model"), vector=bindparam("new_vector"))
)


# -- reading


async def find(connection: AsyncConnection, example_id: str) -> tuple[int, Example] | None:
    """The example and its sequence number."""
    statement = select(*_WITHOUT_VECTOR).where(examples.c.id == example_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else (row.seq, example_of(row))


async def find_by_text(
    connection: AsyncConnection, namespace: str, text_hash: str
) -> tuple[int, Example] | None:
    """The namespace's example of this question and answer."""
    statement = select(*_WITHOUT_VECTOR).where(
        examples.c.namespace == namespace, examples.c.text_hash == text_hash
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else (row.seq, example_of(row))


async def by_seqs(connection: AsyncConnection, seqs: Sequence[int]) -> dict[int, Example]:
    """Those that are there, by sequence number."""
    rows = await _some(connection, examples.c.seq, seqs, _WITHOUT_VECTOR)
    return {row.seq: example_of(row) for row in rows}


async def by_ids(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Example]:
    """Those that are there, by id."""
    rows = await _some(connection, examples.c.id, ids, _WITHOUT_VECTOR)
    return {row.id: example_of(row) for row in rows}


async def numbered(
    connection: AsyncConnection, ids: Sequence[str]
) -> dict[str, tuple[int, Example]]:
    """Those that are there, by id, with their sequence numbers."""
    rows = await _some(connection, examples.c.id, ids, _WITHOUT_VECTOR)
    return {row.id: (row.seq, example_of(row)) for row in rows}


async def of_episode(connection: AsyncConnection, episode_id: str) -> list[Example]:
    """What came of an episode, oldest first."""
    statement = (
        select(*_WITHOUT_VECTOR)
        .where(examples.c.source_episode == episode_id)
        .order_by(examples.c.seq)
    )
    return [example_of(row) for row in await connection.execute(statement)]


async def page(
    connection: AsyncConnection,
    where: ExampleFilter,
    limit: int,
    after: Position | None = None,
    sort: RuleSort = RuleSort.NEWEST,
) -> tuple[list[tuple[Position, Example]], int]:
    """Up to `limit` examples that come after a place in this order; and the total."""
    order = _ORDERS[sort]
    condition = and_(true(), *conditions(where, connection.dialect.name))
    found = select(examples.c.seq).where(condition).order_by(*order.by).limit(limit)
    if after is not None:
        found = found.where(order.after(after))
    seqs = list(await connection.scalars(found))
    alone = after is None and len(seqs) < limit
    total = len(seqs) if alone else await _count(connection, condition)
    rows = await connection.execute(
        select(*_WITHOUT_VECTOR).where(examples.c.seq.in_(seqs)).order_by(*order.by)
    )
    return [(order.place(row), example_of(row)) for row in rows], total


@dataclass(frozen=True, slots=True)
class StoredExample:
    """An example as it is stored."""

    seq: int
    example: Example
    text_hash: str


async def all_of(connection: AsyncConnection, namespace: str) -> dict[str, StoredExample]:
    """All of a namespace's examples, by id."""
    statement = select(*_WITHOUT_VECTOR).where(examples.c.namespace == namespace)
    rows = await connection.execute(statement)
    return {row.id: StoredExample(row.seq, example_of(row), row.text_hash) for row in rows}


async def with_texts(
    connection: AsyncConnection, namespace: str, hashes: Sequence[str]
) -> dict[str, str]:
    """Hash of question and answer -> id of the namespace's example that has them."""
    found: dict[str, str] = {}
    for some in _portions(hashes):
        statement = select(examples.c.text_hash, examples.c.id).where(
            examples.c.namespace == namespace, examples.c.text_hash.in_(some)
        )
        found.update({row.text_hash: row.id for row in await connection.execute(statement)})
    return found


async def batch(
    connection: AsyncConnection, where: ExampleFilter, after: int, limit: int
) -> list[tuple[int, Example]]:
    """The next examples in order of their sequence numbers."""
    statement = (
        select(*_WITHOUT_VECTOR)
        .where(examples.c.seq > after, and_(true(), *conditions(where, connection.dialect.name)))
        .order_by(examples.c.seq)
        .limit(limit)
    )
    return [(row.seq, example_of(row)) for row in await connection.execute(statement)]


def conditions(where: ExampleFilter, dialect: str) -> Iterator[ColumnElement[bool]]:
    """What SQL asks of the examples of a filter."""
    for column, value in (
        (examples.c.namespace, where.namespace),
        (examples.c.state, where.state),
        (examples.c.trust, where.trust),
        (examples.c.domain, where.domain),
        (examples.c.source_episode, where.source_episode),
    ):
        if value is not None:
            yield column == value
    if where.min_exposures is not None:
        yield examples.c.exposures >= where.min_exposures
    if where.max_exposures is not None:
        yield examples.c.exposures <= where.max_exposures
    if where.min_lift is not None or where.max_lift is not None:
        yield examples.c.id.in_(lifted(where.namespace, where.min_lift, where.max_lift))
    if where.created_after is not None:
        yield examples.c.created_at >= where.created_after
    if where.created_before is not None:
        yield examples.c.created_at < where.created_before
    if where.namespaces is not None:
        yield examples.c.namespace.in_(sorted(where.namespaces))
    if where.text:
        part = storable(where.text)
        yield or_(
            contains(dialect, examples.c.question, part),
            contains(dialect, examples.c.answer, part),
        )


# -- writing


async def insert_all(
    connection: AsyncConnection,
    new: Sequence[tuple[str, Example]],
    model: str,
    vectors: Mapping[str, Vector],
) -> None:
    """Examples with the hashes of their texts, and vectors of their questions by id.
    Raises IntegrityError where an id or a text is taken."""
    rows = [
        {
            **_changeable(example),
            "id": example.id,
            "namespace": example.namespace,
            "exposures": example.exposures,
            "source_episode": example.source_episode,
            "created_at": example.created_at,
            "text_hash": text_hash,
            **_vector_columns(model, vectors.get(example.id)),
        }
        for text_hash, example in new
    ]
    if rows:
        await connection.execute(insert(examples), rows)


async def update_all(
    connection: AsyncConnection,
    changed: Sequence[Example],
    hashes: Mapping[str, str] | None = None,
) -> None:
    """Writes what can change of examples; exposures only `evidence.count_exposures` counts.
    `hashes` (of question and answer, by id) are needed where these change."""
    rows = [
        {"own": each.id, **{f"new_{name}": value for name, value in _changeable(each).items()}}
        for each in changed
    ]
    if rows:
        await connection.execute(_UPDATE, rows)
    if hashes:
        await set_hashes(connection, hashes)


async def set_hashes(connection: AsyncConnection, hashes: Mapping[str, str]) -> None:
    """By id. Raises IntegrityError where two examples would be the same."""
    if hashes:
        rows = [{"own": id, "hash": value} for id, value in hashes.items()]
        await connection.execute(_SET_HASH, rows)


async def set_vectors(
    connection: AsyncConnection, model: str, vectors: Mapping[int, Vector | None]
) -> None:
    """By sequence number; None where the question waits to be embedded."""
    rows = []
    for seq, vector in vectors.items():
        values = _vector_columns(model, vector)
        rows.append(
            {"own": seq, **{"new_model": values["embedding_model"], "new_vector": values["vector"]}}
        )
    if rows:
        await connection.execute(_SET_VECTOR, rows)


# -- the index


async def indexed_of(
    connection: AsyncConnection, model: str, ids: Sequence[str]
) -> list[IndexedExample]:
    """What the index needs of those that are there, whatever their state."""
    rows = await _some(connection, examples.c.id, ids)
    rivals = await _rivals(connection, [row.id for row in rows])
    return [_indexed(row, model, rivals.get(row.id, ())) for row in rows]


async def indexed_after(
    connection: AsyncConnection, model: str, seq: int, limit: int
) -> list[IndexedExample]:
    """The next active examples in order of their sequence numbers."""
    statement = (
        select(examples).where(examples.c.seq > seq, _ACTIVE).order_by(examples.c.seq).limit(limit)
    )
    rows = (await connection.execute(statement)).all()
    rivals = await _rivals(connection, [row.id for row in rows])
    return [_indexed(row, model, rivals.get(row.id, ())) for row in rows]


async def resting(
    connection: AsyncConnection,
    model: str,
    namespace: str | None,
    states: Sequence[RuleState],
    dimension: int,
    limit: int,
) -> list[tuple[int, Vector]]:
    """(seq, vector) of examples in states that the index does not hold; the newest `limit`."""
    statement = (
        select(examples.c.seq, examples.c.vector)
        .where(
            examples.c.state.in_([state.value for state in states]),
            embedded(model, dimension),
        )
        .order_by(examples.c.seq.desc())
        .limit(limit)
    )
    if namespace is not None:
        statement = statement.where(examples.c.namespace == namespace)
    rows = await connection.execute(statement)
    return [(row.seq, np.frombuffer(row.vector, dtype="<f4")) for row in rows]


async def vectors_of(
    connection: AsyncConnection, model: str, ids: Sequence[str]
) -> dict[str, Vector]:
    """By id; examples that have none of this model are left out."""
    rows = await _some(connection, examples.c.id, ids)
    found = {row.id: _vector(row, model) for row in rows}
    return {id: vector for id, vector in found.items() if vector is not None}


async def lacking(
    connection: AsyncConnection, model: str, dimension: int | None, limit: int
) -> list[Example]:
    """Active and candidate examples without a usable vector of `model`, oldest first."""
    statement = (
        select(*_WITHOUT_VECTOR)
        .where(
            examples.c.state.in_([RuleState.ACTIVE.value, RuleState.CANDIDATE.value]),
            not_(embedded(model, dimension)),
        )
        .order_by(examples.c.seq)
        .limit(limit)
    )
    return [example_of(row) for row in await connection.execute(statement)]


async def count_indexable(
    connection: AsyncConnection, model: str, dimension: int | None
) -> tuple[int, int]:
    """(active examples, those of them that lack a vector of `model`)."""
    stored = await _count(connection, _ACTIVE)
    return stored, await _count(connection, and_(_ACTIVE, not_(embedded(model, dimension))))


def embedded(model: str, dimension: int | None) -> ColumnElement[bool]:
    """Whether an example has a usable vector of `model`."""
    condition = and_(
        examples.c.vector.is_not(None), func.coalesce(examples.c.embedding_model, "") == model
    )
    if dimension is not None:
        length = func.coalesce(func.length(examples.c.vector), 0)
        condition = and_(condition, length == 4 * dimension)
    return condition


# -- capacity and time


@dataclass(frozen=True, slots=True)
class PrunableExample:
    """What a prune looks at of an active example."""

    seq: int
    exposures: int
    trust: Trust
    verified_at: datetime
    lift: float
    """Zero where nothing has been measured."""


async def active(
    connection: AsyncConnection, namespace: str, verified_before: datetime | None = None
) -> list[PrunableExample]:
    """Active examples, oldest first."""
    statement = (
        select(
            examples.c.seq,
            examples.c.exposures,
            examples.c.trust,
            examples.c.verified_at,
            func.coalesce(standings.c.lift, 0.0),
        )
        .join_from(examples, standings, standings.c.item_id == examples.c.id, isouter=True)
        .where(examples.c.namespace == namespace, _ACTIVE)
        .order_by(examples.c.seq)
    )
    if verified_before is not None:
        statement = statement.where(examples.c.verified_at < verified_before)
    rows = await connection.execute(statement)
    return [PrunableExample(row[0], row[1], Trust(row[2]), row[3], row[4]) for row in rows]


async def losers(connection: AsyncConnection, namespace: str) -> list[Example]:
    """Active examples whose lift is below zero with its whole interval."""
    statement = (
        select(*_WITHOUT_VECTOR)
        .join_from(examples, standings, standings.c.item_id == examples.c.id)
        .where(examples.c.namespace == namespace, _ACTIVE, standings.c.lift_high < 0)
        .order_by(examples.c.seq)
    )
    return [example_of(row) for row in await connection.execute(statement)]


async def expired(
    connection: AsyncConnection, before: datetime, limit: int, within: Collection[str]
) -> list[Example]:
    """Active examples of these namespaces whose time was over before then, oldest first."""
    statement = (
        select(*_WITHOUT_VECTOR)
        .where(_ACTIVE, examples.c.expires_at < before, examples.c.namespace.in_(within))
        .order_by(examples.c.seq)
        .limit(limit)
    )
    return [example_of(row) for row in await connection.execute(statement)]


async def learned_before(
    connection: AsyncConnection, namespace: str, before: datetime, limit: int
) -> list[str]:
    """Ids of the examples of this namespace, whatever their state, that came of an episode and
    that nobody has verified since then; the longest unverified first. Locked where the database
    locks rows, without those that somebody else has locked."""
    statement = (
        select(examples.c.id)
        .where(
            examples.c.namespace == namespace,
            examples.c.source_episode.is_not(None),
            examples.c.verified_at < before,
        )
        .order_by(examples.c.verified_at, examples.c.seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(await connection.scalars(statement))


async def remove(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """Deletes examples with their standings and their links. What was shown to whom stays: numbers
    and ids, no text."""
    for some in _portions(ids):
        either = or_(links.c.item_id.in_(some), links.c.other.in_(some))
        await connection.execute(delete(links).where(either))
        await connection.execute(delete(standings).where(standings.c.item_id.in_(some)))
        await connection.execute(delete(examples).where(examples.c.id.in_(some)))


async def count_active(connection: AsyncConnection, namespace: str) -> int:
    """Expired ones among them."""
    return await _count(connection, and_(examples.c.namespace == namespace, _ACTIVE))


async def least_worthy(
    connection: AsyncConnection, namespace: str, count: int, spared: Collection[str] = ()
) -> list[Example]:
    """Active examples that go first: learned ones before those that people wrote, of these the
    lowest lift (nothing measured counts as none), of equals the least trusted, then the longest
    unverified."""
    statement = (
        select(*_WITHOUT_VECTOR)
        .join_from(examples, standings, standings.c.item_id == examples.c.id, isouter=True)
        .where(examples.c.namespace == namespace, _ACTIVE, examples.c.id.not_in(spared))
        .order_by(
            _LEARNED.desc(),
            func.coalesce(standings.c.lift, 0.0),
            _TRUST_RANK,
            examples.c.verified_at,
            examples.c.seq,
        )
        .limit(count)
    )
    return [example_of(row) for row in await connection.execute(statement)]


async def counts(connection: AsyncConnection) -> list[tuple[str, str, int]]:
    """(namespace, state, examples)."""
    columns = (examples.c.namespace, examples.c.state)
    rows = await connection.execute(select(*columns, func.count()).group_by(*columns))
    return [(row[0], row[1], row[2]) for row in rows]


# -- conflicts


async def forget_conflicts(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """Of examples that say something else now; those of others stay."""
    for some in _portions(ids):
        either = or_(links.c.item_id.in_(some), links.c.other.in_(some))
        await connection.execute(delete(links).where(_CONFLICT, either))


async def conflicts(
    connection: AsyncConnection,
    within: Collection[str] | None,
    now: datetime,
    limit: int,
    after: int | None,
) -> tuple[list[tuple[int, str, str]], int]:
    """(number of the link, id of the newer example, id of the older one), newest first, of pairs
    that are both active and unexpired; and the total."""
    live = [
        and_(each.c.state == RuleState.ACTIVE.value, _unexpired(each, now))
        for each in (_one, _other)
    ]
    pairs = (
        select(links.c.seq, links.c.item_id, links.c.other)
        .join_from(links, _one, _one.c.id == links.c.item_id)
        .join(_other, _other.c.id == links.c.other)
        .where(_CONFLICT, *live)
    )
    if within is not None:
        pairs = pairs.where(links.c.namespace.in_(sorted(within)))
    total = await connection.scalar(select(func.count()).select_from(pairs.subquery())) or 0
    shown = pairs.order_by(links.c.seq.desc()).limit(limit)
    if after is not None:
        shown = shown.where(links.c.seq < after)
    return [(row[0], row[1], row[2]) for row in await connection.execute(shown)], total


async def rivals(connection: AsyncConnection, example_id: str, now: datetime) -> list[Example]:
    """Active, unexpired examples that contradict one, oldest first."""
    ids = (await _rivals(connection, [example_id])).get(example_id, ())
    statement = (
        select(*_WITHOUT_VECTOR)
        .where(examples.c.id.in_(ids), _ACTIVE, _unexpired(examples, now))
        .order_by(examples.c.seq)
    )
    return [example_of(row) for row in await connection.execute(statement)]


async def _rivals(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Id -> ids of the examples that it is linked with as contradicting, whatever their state."""
    found: dict[str, list[str]] = {}
    for some in _portions(ids):
        either = or_(links.c.item_id.in_(some), links.c.other.in_(some))
        pairs = select(links.c.item_id, links.c.other).where(_CONFLICT, either)
        for one, other in await connection.execute(pairs):
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
    return found


def _unexpired(table: Any, now: datetime) -> ColumnElement[bool]:
    return or_(table.c.expires_at.is_(None), table.c.expires_at > now)


# -- rows


def example_of(row: Row[Any]) -> Example:
    """The example of a whole row."""
    return Example(
        id=row.id,
        namespace=row.namespace,
        state=RuleState(row.state),
        question=row.question,
        answer=row.answer,
        label=row.label,
        domain=row.domain,
        instructions=row.instructions,
        trust=Trust(row.trust),
        exposures=row.exposures,
        source_episode=row.source_episode,
        version=row.version,
        reason=row.reason,
        verified_at=row.verified_at,
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _changeable(example: Example) -> dict[str, Any]:
    return {
        "state": example.state,
        "question": example.question,
        "answer": example.answer,
        "label": example.label,
        "domain": example.domain,
        "instructions": example.instructions,
        "trust": example.trust,
        "version": example.version,
        "reason": example.reason,
        "verified_at": example.verified_at,
        "expires_at": example.expires_at,
        "updated_at": example.updated_at,
    }


def _indexed(row: Row[Any], model: str, rivals: Collection[str]) -> IndexedExample:
    return IndexedExample(
        seq=row.seq,
        id=row.id,
        namespace=row.namespace,
        state=RuleState(row.state),
        question=row.question,
        answer=row.answer,
        label=row.label,
        trust=Trust(row.trust),
        verified_at=row.verified_at,
        expires_at=row.expires_at,
        vector=_vector(row, model),
        rivals=rivals,
        instructions=row.instructions,
    )


def _vector(row: Row[Any], model: str) -> Vector | None:
    if row.vector is None or row.embedding_model != model:
        return None
    return np.frombuffer(row.vector, dtype="<f4")


def _vector_columns(model: str, vector: Vector | None) -> dict[str, Any]:
    if vector is None:
        return {"embedding_model": None, "vector": None}
    return {"embedding_model": model, "vector": vector.astype("<f4").tobytes()}


def _portions(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


async def _some(
    connection: AsyncConnection,
    column: Any,
    values: Sequence[Any],
    wanted: Sequence[Any] = (examples,),
) -> list[Row[Any]]:
    found: list[Row[Any]] = []
    for some in _portions(values):
        found += await connection.execute(select(*wanted).where(column.in_(some)))
    return found


async def _count(connection: AsyncConnection, condition: ColumnElement[bool]) -> int:
    statement = select(func.count()).select_from(examples).where(condition)
    return await connection.scalar(statement) or 0
