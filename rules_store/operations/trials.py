"""Trials move rules: candidates are promoted or refuted, active ones demoted for what they do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.events import Change
from rules_store.models.evidence import Judgement, Standing, Trial
from rules_store.models.rules import Rule, RuleState
from rules_store.operations import capacity, rule_writes, voices
from rules_store.operations.context import StoreContext
from rules_store.operations.credit import standing_now
from rules_store.operations.rules import find
from rules_store.policy.gate import Verdict
from rules_store.repository import events, evidence, links, rules, standings

GATE = events.GATE
"""Actor of the events below."""
PROMOTED, DEMOTED, REFUTED, SUPERSEDED = (
    "rule.promoted",
    "rule.demoted",
    "rule.refuted",
    "rule.superseded",
)
ON_TRIAL = (RuleState.CANDIDATE, RuleState.ACTIVE)


async def add(
    context: StoreContext, connection: AsyncConnection, rule: Rule, trial: Trial
) -> Judgement:
    """See `EvidenceOperations.record_trial`; within `StoreContext.change`."""
    now = context.clock()
    found = await rules.find(connection, rule.id)
    held = None if found is None else found[1]
    text_hash = rule_writes.text_hash(rule.text)
    if (
        held is None
        or held.state not in ON_TRIAL
        or rule_writes.text_hash(held.text) != text_hash
        or context.namespaces.is_frozen(held.namespace)
        or not await evidence.add_trial(connection, held.namespace, held.id, text_hash, trial, now)
    ):
        return Judgement(rule.id, None, None)
    standing = await standing_now(context, connection, held.namespace, held.id, now)
    assert standing is not None, "the rule was found above"
    standing = standing.tried_on(trial)
    under_way = (await evidence.trials_of(connection, held.id, text_hash))[: standing.tried]
    judged = voices.verdict_on(context, held.namespace, standing, under_way)
    if judged is None:
        await standings.put(connection, standing)
        return Judgement(held.id, None, None)
    return await _conclude(context, connection, held, standing, judged)


async def _conclude(
    context: StoreContext,
    connection: AsyncConnection,
    rule: Rule,
    standing: Standing,
    judged: Verdict,
) -> Judgement:
    """Does what the gate's verdict says."""
    why = (
        f"{judged.value}: helped {standing.helped} and harmed {standing.harmed} times in "
        f"{standing.tried} replays"
    )
    if judged is Verdict.HELPFUL:
        rival = await _stronger_opponent(connection, rule, standing)
        if rival is not None:
            why += f", but rule {rival} says the opposite and has done better"
            judged = Verdict.USELESS
    # The next test begins anew; what this one found is in the trials and in the tallies.
    standing = replace(
        standing,
        helped=0,
        harmed=0,
        tried=0,
        verdict=judged,
        proven=standing.proven or judged is Verdict.HELPFUL,
    )
    if judged is Verdict.HELPFUL:
        await standings.put(connection, standing)
        if rule.state is RuleState.ACTIVE:
            return Judgement(rule.id, judged, None, why)
        await _promote(context, connection, rule, why)
        return Judgement(rule.id, judged, PROMOTED, why)
    if judged is Verdict.USELESS and standing.proven:
        # It has proven itself before, and no harm was found now.
        await standings.put(connection, replace(standing, verdict=Verdict.HELPFUL))
        return Judgement(rule.id, judged, None, why)
    await standings.put(connection, replace(standing, proven=False))
    kind = DEMOTED if rule.state is RuleState.ACTIVE else REFUTED
    await _retire(connection, rule, kind, why, context.clock())
    return Judgement(rule.id, judged, kind, why)


async def _promote(
    context: StoreContext, connection: AsyncConnection, rule: Rule, why: str
) -> None:
    """A candidate steers from now on; active rules that say the opposite go."""
    now = context.clock()
    after = rule_writes.moved(rule, RuleState.ACTIVE, why, now)
    await rule_writes.update(connection, rule, after, PROMOTED, Change(GATE, why))
    reason = f"rule {rule.id} says the opposite and has done better"
    for other in await links.opponents(connection, rule.id):
        _, loser = await find(connection, other)
        await _retire(connection, loser, SUPERSEDED, reason, now)
    await capacity.make_room(context, connection, rule.namespace, [rule.id])


async def _stronger_opponent(
    connection: AsyncConnection, rule: Rule, standing: Standing
) -> str | None:
    """An active, proven rule that says the opposite and has the larger lift."""
    for other in await links.opponents(connection, rule.id):
        known = await standings.find(connection, other)
        if known is not None and known.proven and known.lift.mean > standing.lift.mean:
            return other
    return None


async def _retire(
    connection: AsyncConnection, rule: Rule, kind: str, why: str, at: datetime
) -> None:
    gone = rule_writes.Retirement(rule, why, Change(GATE, why))
    await rule_writes.retire(connection, [gone], at, kind)


async def demote(
    context: StoreContext, connection: AsyncConnection, rule_id: str, probation: int
) -> Judgement | None:
    """Retires an active rule that harms, or that has steered `probation` requests without proving
    itself; None where it does neither. Within `StoreContext.change`: what made it look so may have
    changed since."""
    found = await rules.find(connection, rule_id)
    if found is None or found[1].state is not RuleState.ACTIVE:
        return None
    rule = found[1]
    if context.namespaces.is_frozen(rule.namespace):
        return None
    standing = await standings.find(connection, rule_id)
    harm = None
    if standing is not None:
        words = rule_writes.text_hash(rule.text)
        harm = await voices.harm(context, connection, standing, words)
    if harm is not None:
        judged = Verdict.HARMFUL
        why = f"harmful in use: lift within [{harm.low:.2f}, {harm.high:.2f}]"
    elif standing is not None and standing.proven:
        return None
    else:
        used = await _used(context, connection, rule, probation)
        if used < probation:
            return None
        judged = Verdict.USELESS
        why = f"steered {used} requests and has not proven itself"
    now = context.clock()
    if standing is not None:
        await standings.put(connection, replace(standing, proven=False, verdict=judged, at=now))
    await _retire(connection, rule, DEMOTED, why, now)
    return Judgement(rule_id, judged, DEMOTED, why)


async def _used(
    context: StoreContext, connection: AsyncConnection, rule: Rule, probation: int
) -> int:
    """How many requests the rule has steered since it became active; of one key's half of a
    probation count, where no key decides alone."""
    since = await _activated(connection, rule)
    by_key = await evidence.injected_since(connection, rule.id, since)
    if voices.bounded(context, rule.namespace):
        most = max(1, probation // 2)
        return sum(min(count, most) for count in by_key.values())
    return sum(by_key.values())


async def _activated(connection: AsyncConnection, rule: Rule) -> datetime:
    """When the rule last became active."""
    since = rule.created_at
    for event in await events.of_rule(connection, rule.id):
        before, after = event.before or {}, event.after or {}
        if after.get("state") == RuleState.ACTIVE and before.get("state") != RuleState.ACTIVE:
            since = event.at
    return since
