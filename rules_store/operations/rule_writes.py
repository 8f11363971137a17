"""Steps of a write transaction that changes rules, shared by operators' calls and learning."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.models.events import Change
from rules_store.models.rules import NewRule, Rule, RuleState, Vectors
from rules_store.policy.same_question import folded
from rules_store.repository import embeddings, events, rules, rules_bulk, standings

MERGED = "rule.merged"
RETIRED = "rule.retired"
PRUNED, MERGED_INTO = "pruned (", "merged into "
"""How the reasons of rules begin that went to tidy up, not for what they say."""
MOST_LEARNED = 2**31 - 1
"""The largest frequency that the column holds."""


def new_rule_id() -> str:
    """`rule_` and 24 hexadecimal digits, random."""
    return f"rule_{secrets.token_hex(12)}"


def tidy(text: str) -> str:
    """As it is stored: without what no database takes, and without white space around it."""
    return storable(text).strip()


def text_hash(text: str) -> str:
    """Equal for texts that differ in case, white space or Unicode form only."""
    return hashlib.sha256(folded(storable(text)).encode()).hexdigest()


def together(*frequencies: int) -> int:
    """Their sum, as far as the column holds it."""
    return min(sum(frequencies), MOST_LEARNED)


def described(rule: Rule) -> dict[str, Any]:
    """The rule as an event keeps it: enough to restore it."""
    return {
        "polarity": rule.polarity.value,
        "state": rule.state.value,
        "text": rule.text,
        "trigger": rule.trigger,
        "domain": rule.domain,
        "frequency": rule.frequency,
        "version": rule.version,
        "reason": rule.reason,
        "source_episode": rule.source_episode,
    }


async def create(
    connection: AsyncConnection,
    new: NewRule,
    vectors: Vectors,
    model: str,
    at: datetime,
    change: Change,
    *,
    key: str | None = None,
) -> tuple[int, Rule]:
    """A rule of version 1 with its vectors and its event. Raises IntegrityError where the same
    text is there."""
    rule = Rule(
        id=new_rule_id(),
        namespace=new.namespace,
        polarity=new.polarity,
        state=new.state,
        text=tidy(new.text),
        trigger=tidy(new.trigger),
        domain=storable(new.domain),
        frequency=1,
        exposures=0,
        source_episode=new.source_episode,
        version=1,
        reason=None if new.reason is None else storable(new.reason),
        created_at=at,
        updated_at=at,
        written_by=None if new.written_by is None else storable(new.written_by),
    )
    seq = await rules.insert_rule(connection, rule, text_hash(rule.text))
    await embeddings.insert_vectors(connection, seq, model, vectors)
    await events.append(
        connection,
        at,
        rule.namespace,
        "rule.created",
        change,
        rule_id=rule.id,
        after=described(rule),
        key=key,
    )
    return seq, rule


async def update(
    connection: AsyncConnection,
    before: Rule,
    after: Rule,
    kind: str,
    change: Change,
    *,
    key: str | None = None,
) -> None:
    """Writes `after` and the event that says so. New words start with the evidence that these very
    words have (none, or that of their earlier time)."""
    await rules.update_rule(connection, after, text_hash(after.text))
    if text_hash(before.text) != text_hash(after.text):
        await standings.restart(connection, after.id, text_hash(after.text), after.updated_at)
    await events.append(
        connection,
        after.updated_at,
        after.namespace,
        kind,
        change,
        rule_id=after.id,
        before=described(before),
        after=described(after),
        key=key,
    )


def moved(rule: Rule, state: RuleState, reason: str, at: datetime) -> Rule:
    """The rule's next version, in this state for this reason."""
    return replace(
        rule, state=state, version=rule.version + 1, reason=storable(reason), updated_at=at
    )


@dataclass(frozen=True, slots=True)
class Retirement:
    """A rule that is to go. `reason` is kept with the rule, that of `change` with the event."""

    rule: Rule
    reason: str
    change: Change


async def retire(
    connection: AsyncConnection,
    retirements: Sequence[Retirement],
    at: datetime,
    kind: str = RETIRED,
) -> list[Rule]:
    """The rules as they are then; an event of this kind each.

    The one place that retires rules, whoever wants it. (A rollback gives rules back the state they
    had, which may be this one too.)
    """
    pairs = [
        (each.rule, moved(each.rule, RuleState.RETIRED, each.reason, at)) for each in retirements
    ]
    await rules_bulk.update_rules(connection, [after for _, after in pairs])
    rows = [
        event_row(before, after, kind, each.change)
        for (before, after), each in zip(pairs, retirements, strict=True)
    ]
    await events.append_many(connection, rows)
    return [after for _, after in pairs]


def event_row(before: Rule | None, after: Rule, kind: str, change: Change) -> dict[str, Any]:
    """The event of one rule's change, as `events.append_many` takes it."""
    return {
        "at": after.updated_at,
        "namespace": after.namespace,
        "kind": kind,
        "rule_id": after.id,
        "actor": storable(change.actor),
        "reason": storable(change.reason),
        "key_id": change.key_id,
        "before": None if before is None else described(before),
        "after": described(after),
    }
