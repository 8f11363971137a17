"""Taking all rules of a namespace back to how they were after one event.

The log is append-only, so a rollback is more events and not fewer: rolling back to the last event
before it undoes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import PreviewOutdated, UnknownEvent
from rules_store.models.events import Change, Rollback, RollbackTarget, RuleRollback
from rules_store.models.rules import Polarity, Rule, RuleState, Vectors
from rules_store.operations import rule_writes
from rules_store.operations.namespaces import find
from rules_store.repository import events, rules_bulk, standings

ROLLED_BACK = "namespace.rolled_back"
RULE_ROLLED_BACK = "rule.rolled_back"


async def plan(
    connection: AsyncConnection,
    name: str,
    target: RollbackTarget,
    expected_last: int | None,
    at: datetime,
) -> tuple[Rollback, dict[str, rules_bulk.StoredRule]]:
    """The plan, and the namespace's rules as they are, by id.

    Raises UnknownNamespace, UnknownEvent, PreviewOutdated.
    """
    await find(connection, name)
    to_event = await _resolved(connection, name, target)
    last = await events.last_of(connection, name)
    assert last is not None
    if expected_last not in (None, last):
        raise PreviewOutdated(name, "expected_event")
    then = await events.rules_as_of(connection, name, to_event)
    held = await rules_bulk.rules_of(connection, name)
    planned = [
        _change(held[id].rule, description, to_event, at)
        for id, description in then.items()
        if id in held
    ]
    done = [change for change in planned if change is not None]
    done.sort(key=lambda change: held[change.after.id].seq)
    return Rollback(name, to_event, last, tuple(done)), held


async def carry_out(
    connection: AsyncConnection,
    plan: Rollback,
    held: Mapping[str, rules_bulk.StoredRule],
    vectors: Mapping[str, Vectors],
    model: str,
    change: Change,
    at: datetime,
) -> None:
    """Writes the plan, with an event for each rule and one for the rollback. `vectors`: unit ones
    of the embedding model `model`, by rule id."""
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
    await events.append(
        connection,
        at,
        plan.namespace,
        ROLLED_BACK,
        change,
        before={"event": plan.before_event},
        after={"event": plan.to_event, "changed": len(plan.changes)},
    )


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


async def _rewrite(
    connection: AsyncConnection, plan: Rollback, held: Mapping[str, rules_bulk.StoredRule]
) -> None:
    after = {change.after.id: change.after for change in plan.changes}
    later = {change.after.id for change in plan.changes if change.created_later}
    hashes = _hashes({id: after.get(id, each.rule) for id, each in held.items()}, held, later)
    moved = [id for id, value in hashes.items() if value != held[id].text_hash]
    # Two rules may swap texts, so a hash that another rule gets is free before it does.
    wanted = {hashes[id] for id in moved}
    await rules_bulk.set_hashes(
        connection, {id: id for id in moved if held[id].text_hash in wanted}
    )
    await rules_bulk.update_rules(connection, list(after.values()), hashes)
    await rules_bulk.set_hashes(connection, {id: hashes[id] for id in moved if id not in after})


def _hashes(
    final: Mapping[str, Rule], held: Mapping[str, rules_bulk.StoredRule], later: set[str]
) -> dict[str, str]:
    """Id -> hash of the text. Of rules that come to have one text (a later one had taken up a text
    that another one gets back) one keeps it, and the others have their id in its place."""
    hashes = {id: _hash(rule, held[id]) for id, rule in final.items()}
    owners: dict[tuple[Polarity, str], str] = {}
    for id in sorted(
        final, key=lambda id: (final[id].state is RuleState.RETIRED, id in later, held[id].seq)
    ):
        owners.setdefault((final[id].polarity, hashes[id]), id)
    return {
        id: value if owners[final[id].polarity, value] == id else id for id, value in hashes.items()
    }


def _hash(rule: Rule, held: rules_bulk.StoredRule) -> str:
    if rule.text == held.rule.text and held.text_hash != rule.id:
        return held.text_hash
    return rule_writes.text_hash(rule.text)


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
