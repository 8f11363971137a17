"""Taking all rules and examples of a namespace back to how they were after one event.

The log is append-only, so a rollback is more events and not fewer: rolling back to the last event
before it undoes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import PreviewOutdated, UnknownEvent
from rules_store.models.events import (
    Change,
    ExampleRollback,
    Rollback,
    RollbackTarget,
    RuleRollback,
)
from rules_store.models.examples import Example
from rules_store.models.rules import Polarity, Rule, RuleState, Vector, Vectors
from rules_store.operations import example_writes, rule_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.namespaces import find
from rules_store.repository import events, examples, rules_bulk, standings

ROLLED_BACK = "namespace.rolled_back"
RULE_ROLLED_BACK = "rule.rolled_back"
EXAMPLE_ROLLED_BACK = "example.rolled_back"


@dataclass(frozen=True, slots=True)
class Held:
    """What the namespace has now, by id."""

    rules: Mapping[str, rules_bulk.StoredRule]
    examples: Mapping[str, examples.StoredExample]


async def plan(
    connection: AsyncConnection,
    name: str,
    target: RollbackTarget,
    expected_last: int | None,
    at: datetime,
) -> tuple[Rollback, Held]:
    """The plan, and what the namespace has now.

    Raises UnknownNamespace, UnknownEvent, PreviewOutdated.
    """
    await find(connection, name)
    to_event = await _resolved(connection, name, target)
    last = await events.last_of(connection, name)
    assert last is not None
    if expected_last not in (None, last):
        raise PreviewOutdated(name, "expected_event")
    held = Held(
        await rules_bulk.rules_of(connection, name), await examples.all_of(connection, name)
    )
    then = await events.rules_as_of(connection, name, to_event)
    done = [
        _change(held.rules[id].rule, description, to_event, at)
        for id, description in then.items()
        if id in held.rules
    ]
    then = await events.examples_as_of(connection, name, to_event)
    shown = [
        _example_change(held.examples[id].example, description, to_event, at)
        for id, description in then.items()
        if id in held.examples
    ]
    changes = sorted(filter(None, done), key=lambda change: held.rules[change.after.id].seq)
    of_examples = sorted(filter(None, shown), key=lambda change: held.examples[change.after.id].seq)
    return Rollback(name, to_event, last, tuple(changes), tuple(of_examples)), held


async def carry_out(
    context: StoreContext,
    connection: AsyncConnection,
    plan: Rollback,
    held: Held,
    vectors: Mapping[str, Vectors],
    example_vectors: Mapping[str, Vector],
    change: Change,
    at: datetime,
) -> None:
    """Writes the plan, with an event for each rule and example and one for the rollback.
    `vectors` and `example_vectors`: unit ones, by id."""
    await _roll_rules_back(connection, plan, held.rules, vectors, context.embedding_model, change)
    await _roll_examples_back(context, connection, plan, held.examples, example_vectors, change)
    await events.append(
        connection,
        at,
        plan.namespace,
        ROLLED_BACK,
        change,
        before={"event": plan.before_event},
        after={
            "event": plan.to_event,
            "changed": len(plan.changes),
            "examples_changed": len(plan.examples),
        },
    )


async def _roll_rules_back(
    connection: AsyncConnection,
    plan: Rollback,
    held: Mapping[str, rules_bulk.StoredRule],
    vectors: Mapping[str, Vectors],
    model: str,
    change: Change,
) -> None:
    await _rewrite(connection, plan, held)
    for each in plan.changes:
        text_hash = rule_writes.text_hash(each.after.text)
        if rule_writes.text_hash(each.before.text) != text_hash:
            await standings.restart(connection, each.after.id, text_hash, each.after.updated_at)
    await rules_bulk.replace_vectors(connection, model, _vector_changes(plan, held, vectors))
    rows = [
        rule_writes.event_row(each.before, each.after, RULE_ROLLED_BACK, change)
        for each in plan.changes
    ]
    await events.append_many(connection, rows)


async def _roll_examples_back(
    context: StoreContext,
    connection: AsyncConnection,
    plan: Rollback,
    held: Mapping[str, examples.StoredExample],
    vectors: Mapping[str, Vector],
    change: Change,
) -> None:
    await _rewrite_examples(connection, plan, held)
    asked = {
        held[each.after.id].seq: vectors.get(each.after.id)
        for each in plan.examples
        if each.after.question != each.before.question
    }
    await examples.set_vectors(connection, context.embedding_model, asked)
    for each in plan.examples:
        text_hash = example_writes.hash_of(each.after)
        if example_writes.hash_of(each.before) != text_hash:
            await standings.restart(connection, each.after.id, text_hash, each.after.updated_at)
    rows = [
        example_writes.event_row(each.before, each.after, EXAMPLE_ROLLED_BACK, change)
        for each in plan.examples
    ]
    await events.append_many(connection, rows)
    changed = [each.after for each in plan.examples]
    stored = await examples.vectors_of(
        connection, context.embedding_model, [each.id for each in changed]
    )
    await example_writes.settle(context, connection, changed, stored)


async def _resolved(connection: AsyncConnection, name: str, target: RollbackTarget) -> int:
    """The event to go back to. Raises UnknownEvent."""
    if target.snapshot is not None:
        snapshot = await events.snapshot(connection, name, storable(target.snapshot))
        if snapshot is None:
            raise UnknownEvent(f"Namespace {name!r} has no snapshot {target.snapshot!r}.")
        return snapshot.id
    if target.time is not None:
        found = await events.last_of(connection, name, at=target.time)
        if found is None:
            raise UnknownEvent(f"Namespace {name!r} has no event up to {target.time.isoformat()}.")
        return found
    if target.event is None:
        raise ValueError("a rollback needs an event, a time or a snapshot")
    found = await events.last_of(connection, name, id=target.event)
    if found != target.event:
        raise UnknownEvent(f"Namespace {name!r} has no event {target.event}.")
    return found


def _change(
    rule: Rule, then: dict[str, Any] | None, to_event: int, at: datetime
) -> RuleRollback | None:
    """None where the rule is as it was."""
    if then is None:
        if rule.state is RuleState.RETIRED:
            return None
        after = replace(rule, state=RuleState.RETIRED, reason=f"created after event {to_event}")
    else:
        after = replace(
            rule,
            polarity=Polarity(then["polarity"]),
            state=RuleState(then["state"]),
            text=then["text"],
            trigger=then["trigger"],
            domain=then["domain"],
            frequency=then["frequency"],
            reason=then["reason"],
        )
        if after == rule:
            return None
    after = replace(after, version=rule.version + 1, updated_at=at)
    return RuleRollback(rule, after, created_later=then is None)


def _example_change(
    example: Example, then: dict[str, Any] | None, to_event: int, at: datetime
) -> ExampleRollback | None:
    """None where the example is as it was."""
    if then is None:
        if example.state is RuleState.RETIRED:
            return None
        why = f"created after event {to_event}"
        return ExampleRollback(
            example, example_writes.moved(example, RuleState.RETIRED, why, at), created_later=True
        )
    after = example_writes.restored(example, then)
    if after == example:
        return None
    after = replace(after, version=example.version + 1, updated_at=at)
    return ExampleRollback(example, after, created_later=False)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What is to be known by the hash of its text. Two of one `scope` can't have the same."""

    id: str
    scope: str
    text_hash: str
    order: tuple[bool, bool, int]
    """The least of those that claim one hash gets it."""


async def _rewrite(
    connection: AsyncConnection, plan: Rollback, held: Mapping[str, rules_bulk.StoredRule]
) -> None:
    after = {change.after.id: change.after for change in plan.changes}
    later = {change.after.id for change in plan.changes if change.created_later}
    claims = []
    for id, each in held.items():
        rule = after.get(id, each.rule)
        same = rule.text == each.rule.text and each.text_hash != id
        text_hash = each.text_hash if same else rule_writes.text_hash(rule.text)
        order = (rule.state is RuleState.RETIRED, id in later, each.seq)
        claims.append(_Claim(id, rule.polarity.value, text_hash, order))
    hashes = _settled(claims)
    before = {id: each.text_hash for id, each in held.items()}
    moved = [id for id, value in hashes.items() if value != before[id]]
    await rules_bulk.set_hashes(connection, _in_the_way(moved, before, hashes))
    await rules_bulk.update_rules(connection, list(after.values()), hashes)
    await rules_bulk.set_hashes(connection, {id: hashes[id] for id in moved if id not in after})


async def _rewrite_examples(
    connection: AsyncConnection, plan: Rollback, held: Mapping[str, examples.StoredExample]
) -> None:
    after = {change.after.id: change.after for change in plan.examples}
    later = {change.after.id for change in plan.examples if change.created_later}
    claims = []
    for id, each in held.items():
        example = after.get(id, each.example)
        order = (example.state is RuleState.RETIRED, id in later, each.seq)
        claims.append(_Claim(id, "", example_writes.hash_of(example), order))
    hashes = _settled(claims)
    before = {id: each.text_hash for id, each in held.items()}
    moved = [id for id, value in hashes.items() if value != before[id]]
    await examples.set_hashes(connection, _in_the_way(moved, before, hashes))
    await examples.update_all(connection, list(after.values()))
    await examples.set_hashes(connection, {id: hashes[id] for id in moved})


def _settled(claims: Sequence[_Claim]) -> dict[str, str]:
    """Id -> hash. Of items that come to have one text (a later one had taken up a text that
    another one gets back) one keeps it, and the others have their id in its place."""
    owners: dict[tuple[str, str], str] = {}
    for claim in sorted(claims, key=lambda claim: claim.order):
        owners.setdefault((claim.scope, claim.text_hash), claim.id)
    return {
        claim.id: claim.text_hash if owners[claim.scope, claim.text_hash] == claim.id else claim.id
        for claim in claims
    }


def _in_the_way(
    moved: Sequence[str], before: Mapping[str, str], hashes: Mapping[str, str]
) -> dict[str, str]:
    """Two items may swap texts, so a hash that another one gets is free before it does: id ->
    what stands in for it meanwhile."""
    wanted = {hashes[id] for id in moved}
    return {id: id for id in moved if before[id] in wanted}


def _vector_changes(
    plan: Rollback, held: Mapping[str, rules_bulk.StoredRule], vectors: Mapping[str, Vectors]
) -> list[rules_bulk.NewVectors]:
    """Vectors of texts that stay are kept."""
    found = []
    for change in plan.changes:
        text = change.after.text != change.before.text
        trigger = change.after.trigger != change.before.trigger
        if text or trigger:
            given = vectors.get(change.after.id, Vectors())
            found.append(
                rules_bulk.NewVectors(
                    held[change.after.id].seq, text=text, trigger=trigger, vectors=given
                )
            )
    return found
