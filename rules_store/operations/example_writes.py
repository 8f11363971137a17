"""Steps of a write transaction that changes examples, shared by operators' calls, feedback and
learning. Each runs within `StoreContext.change`."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.index.rule_index import unit
from rules_store.models.events import Change
from rules_store.models.evidence import LinkKind
from rules_store.models.examples import STRENGTH, Example, IndexedExample, NewExample, Trust
from rules_store.models.rules import RuleState, Vector
from rules_store.operations.context import StoreContext
from rules_store.operations.rule_writes import tidy
from rules_store.policy.same_question import CONFLICT_COSINE, contradict, folded, same_numbers
from rules_store.repository import events, examples, links, standings

CREATED = "example.created"
MERGED = "example.merged"
RETIRED = "example.retired"
DEMOTED = "example.demoted"
"""Retired because its lift is below zero."""


def new_example_id() -> str:
    """`example_` and 24 hexadecimal digits, random."""
    return f"example_{secrets.token_hex(12)}"


def text_hash(question: str, answer: str) -> str:
    """Equal for questions and answers that differ in case, white space or Unicode form only."""
    both = "\0".join(folded(storable(text)) for text in (question, answer))
    return hashlib.sha256(both.encode()).hexdigest()


def hash_of(example: Example) -> str:
    """`text_hash` of its question and answer."""
    return text_hash(example.question, example.answer)


def described(example: Example) -> dict[str, Any]:
    """The example as an event keeps it: enough to restore it."""
    expires = example.expires_at
    return {
        "state": example.state.value,
        "question": example.question,
        "answer": example.answer,
        "label": example.label,
        "domain": example.domain,
        "instructions": example.instructions,
        "trust": example.trust.value,
        "version": example.version,
        "reason": example.reason,
        "source_episode": example.source_episode,
        "verified_at": example.verified_at.isoformat(),
        "expires_at": None if expires is None else expires.isoformat(),
    }


def restored(example: Example, then: Mapping[str, Any]) -> Example:
    """The example with what `described` kept of it, but for its version and its source."""
    expires = then["expires_at"]
    return replace(
        example,
        state=RuleState(then["state"]),
        question=then["question"],
        answer=then["answer"],
        label=then["label"],
        domain=then["domain"],
        # What was written before version 0011 has none.
        instructions=then.get("instructions"),
        trust=Trust(then["trust"]),
        reason=then["reason"],
        verified_at=datetime.fromisoformat(then["verified_at"]),
        expires_at=None if expires is None else datetime.fromisoformat(expires),
    )


def checked_vector(context: StoreContext, vector: Vector | None) -> Vector | None:
    """At length 1. Raises InvalidVector."""
    return None if vector is None else unit(vector, context.caches.dimension)


async def keep(
    context: StoreContext,
    connection: AsyncConnection,
    new: NewExample,
    vector: Vector | None,
    change: Change,
    *,
    key: str | None = None,
) -> Example:
    """Writes an example, or verifies anew the one with the same question and answer: its trust is
    raised, a candidate becomes what `new` is, and one that made room or expired comes back. What
    was quarantined, or retired for another reason, stays so.

    `vector`: of the question; without one it is found once `add_embeddings` brings it. Raises
    InvalidVector; ValueError for an empty question or answer; IntegrityError where an event with
    this `key` is there.
    """
    made = _made(context, new)
    own = checked_vector(context, vector)
    same = await examples.find_by_text(connection, made.namespace, hash_of(made))
    if same is not None:
        return await _merge(context, connection, *same, made, own, change, key)
    hashed = [(hash_of(made), made)]
    vectors = {} if own is None else {made.id: own}
    await examples.insert_all(connection, hashed, context.embedding_model, vectors)
    row = event_row(None, made, CREATED, change)
    await events.append_many(connection, [{**row, "key": key}])
    await link_conflicts(context, connection, [made], vectors)
    await make_room(context, connection, made.namespace, spared=[made.id])
    return made


def _made(context: StoreContext, new: NewExample) -> Example:
    """As it would be stored. Raises ValueError."""
    now = context.clock()
    made = tidied(
        Example(
            id=new_example_id(),
            namespace=new.namespace,
            state=new.state,
            question=new.question,
            answer=new.answer,
            label=new.label,
            domain=new.domain,
            instructions=new.instructions,
            trust=new.trust,
            exposures=0,
            source_episode=new.source_episode,
            version=1,
            reason=new.reason,
            verified_at=now,
            expires_at=new.expires_at or default_expiry(context, new.namespace, now),
            created_at=now,
            updated_at=now,
        )
    )
    check_texts(made.question, made.answer)
    return made


def check_texts(question: str, answer: str) -> None:
    """Raises ValueError."""
    if not question:
        raise ValueError("an example needs a question")
    if not answer:
        raise ValueError("an example needs an answer")


def tidy_label(label: str | None) -> str | None:
    """As it is stored; of white space alone: none."""
    return (tidy(label) or None) if label is not None else None


def tidied(example: Example) -> Example:
    """With its texts as they are stored."""
    reason = example.reason
    return replace(
        example,
        question=tidy(example.question),
        answer=tidy(example.answer),
        label=tidy_label(example.label),
        domain=storable(example.domain),
        reason=None if reason is None else storable(reason),
    )


def default_expiry(context: StoreContext, namespace: str, now: datetime) -> datetime | None:
    """When an example without a date of its own ends."""
    days = context.namespaces.options_of(namespace).example_days
    return None if days is None else now + timedelta(days=days)


async def _merge(
    context: StoreContext,
    connection: AsyncConnection,
    seq: int,
    before: Example,
    new: Example,
    vector: Vector | None,
    change: Change,
    key: str | None,
) -> Example:
    trusted = STRENGTH[new.trust] >= STRENGTH[before.trust]
    after = replace(
        before,
        trust=new.trust if trusted else before.trust,
        label=new.label if trusted and new.label is not None else before.label,
        instructions=new.instructions or before.instructions,
        verified_at=new.verified_at,
        expires_at=_later(before.expires_at, new.expires_at),
        version=before.version + 1,
        updated_at=new.updated_at,
    )
    if before.state is RuleState.CANDIDATE or await _may_return(connection, before):
        after = replace(after, state=new.state, reason=new.reason)
    if vector is not None:
        await examples.set_vectors(connection, context.embedding_model, {seq: vector})
    await update(context, connection, before, after, MERGED, change, key=key)
    return after


async def _may_return(connection: AsyncConnection, example: Example) -> bool:
    """Whether it was retired only to make room or because its time was over."""
    if example.state is not RuleState.RETIRED:
        return False
    last = await events.last_of_example(connection, example.id, RETIRED)
    return last is not None and last.actor == events.POLICY


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    """None is never, the latest of all."""
    return None if one is None or other is None else max(one, other)


async def update(
    context: StoreContext,
    connection: AsyncConnection,
    before: Example,
    after: Example,
    kind: str,
    change: Change,
    *,
    key: str | None = None,
) -> None:
    """Writes `after` with its event; its conflicts are looked for anew where it may have others,
    and room is made for one that becomes active. New words start without the evidence of the old
    ones. A vector that changes is written first."""
    await examples.update_all(connection, [after], {after.id: hash_of(after)})
    if hash_of(before) != hash_of(after):
        await standings.restart(connection, after.id, hash_of(after), after.updated_at)
    row = event_row(before, after, kind, change)
    await events.append_many(connection, [{**row, "key": key}])
    if asks_otherwise(before, after):
        vectors = await examples.vectors_of(connection, context.embedding_model, [after.id])
        await link_conflicts(context, connection, [after], vectors)
    if after.state is RuleState.ACTIVE and before.state is not RuleState.ACTIVE:
        await make_room(context, connection, after.namespace, spared=[after.id])


def asks_otherwise(before: Example, after: Example) -> bool:
    """Whether it may be in other conflicts than it was."""
    return after.state is RuleState.ACTIVE and (before.state, before.question, before.label) != (
        after.state,
        after.question,
        after.label,
    )


def moved(example: Example, state: RuleState, reason: str, at: datetime) -> Example:
    """The example's next version, in this state for this reason."""
    return replace(
        example, state=state, version=example.version + 1, reason=storable(reason), updated_at=at
    )


@dataclass(frozen=True, slots=True)
class Retirement:
    """An example that is to go. `reason` is kept with it, that of `change` with the event."""

    example: Example
    reason: str
    change: Change


async def retire(
    connection: AsyncConnection,
    retirements: Sequence[Retirement],
    at: datetime,
    kind: str = RETIRED,
) -> list[Example]:
    """The examples as they are then; an event of this kind each. The one place that retires
    examples, whoever wants it, but for a rollback."""
    pairs = [
        (each.example, moved(each.example, RuleState.RETIRED, each.reason, at))
        for each in retirements
    ]
    await examples.update_all(connection, [after for _, after in pairs])
    rows = [
        event_row(before, after, kind, each.change)
        for (before, after), each in zip(pairs, retirements, strict=True)
    ]
    await events.append_many(connection, rows)
    return [after for _, after in pairs]


async def retire_of_episode(
    context: StoreContext, connection: AsyncConnection, episode_id: str, change: Change
) -> list[Example]:
    """All that came of an episode and are not retired yet; as they are then. Raises
    NamespaceFrozen."""
    standing = [
        each
        for each in await examples.of_episode(connection, episode_id)
        if each.state is not RuleState.RETIRED
    ]
    for namespace in {each.namespace for each in standing}:
        context.namespaces.check_writable(namespace)
    gone = [Retirement(each, change.reason, change) for each in standing]
    return await retire(connection, gone, context.clock())


async def make_room(
    context: StoreContext,
    connection: AsyncConnection,
    namespace: str,
    *,
    spared: Sequence[str] = (),
) -> list[Example]:
    """Retires active examples of the namespace down to its capacity, the least worthy first; none
    of `spared`."""
    capacity = context.namespaces.options_of(namespace).example_capacity
    excess = await examples.count_active(connection, namespace) - capacity
    if excess <= 0:
        return []
    victims = await examples.least_worthy(connection, namespace, excess, spared)
    reason = f"capacity of {capacity} examples"
    change = Change(events.POLICY, reason)
    gone = [Retirement(example, reason, change) for example in victims]
    return await retire(connection, gone, context.clock())


async def link_conflicts(
    context: StoreContext,
    connection: AsyncConnection,
    changed: Sequence[Example],
    vectors: Mapping[str, Vector],
) -> None:
    """Links those of the changed examples that contradict another active one of nearly the same
    question, in place of what they contradicted before. `vectors`: unit ones, by id; an example
    without one is in no conflict, as nobody finds it."""
    await examples.forget_conflicts(connection, [each.id for each in changed])
    fresh = [each for each in changed if each.state is RuleState.ACTIVE and each.id in vectors]
    renewed = {each.id for each in changed}
    pairs = _among(fresh, vectors)
    for example in fresh:
        known = context.caches.examples.alike(example.namespace, vectors[example.id])
        pairs += [
            (example, other.id)
            for other in known
            if other.id not in renewed and _against(example, other)
        ]
    # Within this transaction one of them may have left.
    standing = await examples.by_ids(connection, [other for _, other in pairs])
    now, kind = context.clock(), LinkKind.CONTRADICTS
    for example, other in pairs:
        if other in standing and standing[other].state is RuleState.ACTIVE:
            await links.add(connection, example.namespace, example.id, kind, other, now)


def _among(fresh: Sequence[Example], vectors: Mapping[str, Vector]) -> list[tuple[Example, str]]:
    """Each example with the ids of those before it that contradict it."""
    if len(fresh) < 2:
        return []
    stacked = np.stack([vectors[each.id] for each in fresh])
    pairs: list[tuple[Example, str]] = []
    for at, example in enumerate(fresh):
        # A row at a time: a rollback may change a whole namespace.
        near = np.flatnonzero(stacked[:at] @ stacked[at] >= CONFLICT_COSINE).tolist()
        pairs += [(example, fresh[other].id) for other in near if _against(example, fresh[other])]
    return pairs


def _against(example: Example, other: Example | IndexedExample) -> bool:
    return (
        example.namespace == other.namespace
        and contradict(example.label, other.label)
        and same_numbers(example.question, other.question)
    )


def event_row(before: Example | None, after: Example, kind: str, change: Change) -> dict[str, Any]:
    """The event of one example's change, as `events.append_many` takes it."""
    return {
        "at": after.updated_at,
        "namespace": after.namespace,
        "kind": kind,
        "example_id": after.id,
        "actor": storable(change.actor),
        "reason": storable(change.reason),
        "key_id": change.key_id,
        "before": None if before is None else described(before),
        "after": described(after),
    }
