"""What a job has learned on its way into the rules: which distilled rule is new, which merges into
one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import InvalidVector
from rules_store.models.events import Change
from rules_store.models.evidence import LinkKind
from rules_store.models.jobs import Job
from rules_store.models.rules import (
    INDEXED_STATES,
    Draft,
    LearnedRule,
    NewRule,
    Polarity,
    Rule,
    RuleState,
    Vector,
)
from rules_store.operations import rule_writes
from rules_store.operations.context import StoreContext
from rules_store.policy.contradiction import OPPOSITE_COSINE, OPPOSITES, contradict
from rules_store.policy.gate import Verdict
from rules_store.policy.same_question import bare
from rules_store.repository import embeddings, events, links, rules, standings

HELD_BACK_COSINE = 0.8
"""Of a new rule to one that was put aside, from which it says the same in other words. The packaged
embedder gives rewordings of a rule 0.82 to 0.87 and other rules of its subject 0.5 to 0.79."""
PUT_ASIDE = 1000
"""Rules that were put aside last and are compared."""


def checked(context: StoreContext, job: Job, drafts: Sequence[Draft]) -> list[Draft]:
    """Drafts with unit vectors. Raises InvalidVector, ValueError."""
    if len({draft.rule.polarity for draft in drafts}) < len(drafts):
        raise ValueError("a job has at most one draft per polarity")
    ready = [Draft(draft.rule, context.units(draft.vectors)) for draft in drafts]
    for draft in ready:
        if draft.rule.namespace != job.namespace:
            raise ValueError("a job writes rules of its own namespace only")
        if draft.rule.state is RuleState.RETIRED:
            raise ValueError("a draft is active, candidate or quarantined")
        if not rule_writes.tidy(draft.rule.text):
            raise ValueError("a rule needs a text")
        if draft.rule.state in INDEXED_STATES and draft.vectors.text is None:
            raise InvalidVector("A rule that is to be found needs the embedding of its text.")
    return ready


async def learn(
    context: StoreContext, connection: AsyncConnection, job: Job, draft: Draft
) -> LearnedRule:
    """Merges the draft into the rule that says the same, or inserts it."""
    new, now = draft.rule, context.clock()
    key = f"{job.key}:{new.polarity.value}"
    same = await _same(context, connection, draft)
    if same is not None:
        frequency = rule_writes.together(same.frequency, 1)
        change = Change(events.LEARNER, f"learned again in {job.episode_id}", job.key_id)
        rule = replace(same, frequency=frequency, updated_at=now)
        await rule_writes.update(connection, same, rule, rule_writes.MERGED, change, key=key)
        outcome = "merged"
        note = None if same.state is RuleState.ACTIVE else f"the same rule is {same.state}"
    else:
        new = await _held_back(context, connection, new, draft.vectors.text)
        why = new.reason or f"learned in {job.episode_id}"
        change = Change(events.LEARNER, why, job.key_id)
        new = replace(new, source_episode=job.episode_id)
        _, rule = await rule_writes.create(
            connection, new, draft.vectors, context.embedding_model, now, change, key=key
        )
        outcome = "quarantined" if rule.state is RuleState.QUARANTINED else "created"
        note = rule.reason
    await links.add(
        connection, rule.namespace, rule.id, LinkKind.SOURCE, job.episode_id, now, job.key_id
    )
    if outcome == "created":
        await _link_opposites(context, connection, rule, draft)
    return LearnedRule(rule.id, rule.polarity, rule.text, outcome, note)


async def _held_back(
    context: StoreContext, connection: AsyncConnection, new: NewRule, vector: Vector | None
) -> NewRule:
    """In quarantine, if it says again, in the same letters or by meaning, what a person has retired
    or rejected, or the gate has retired for its harm. What only made room is none."""
    if new.state not in INDEXED_STATES:
        return new
    before = await embeddings.put_aside(
        connection, context.embedding_model, new.namespace, new.polarity, PUT_ASIDE
    )
    letters = bare(new.text)
    for row in before:
        same_letters = bare(row.text) == letters
        if not same_letters and _cosine(row.text_vector, vector) < HELD_BACK_COSINE:
            continue
        who = await _put_aside_by(connection, row.id, same_letters=same_letters)
        if who is not None:
            reason = f"retired_before: says again what rule {row.id} said, which {who} put aside"
            return replace(new, state=RuleState.QUARANTINED, reason=reason)
    return new


def _cosine(one: Vector | None, other: Vector | None) -> float:
    if one is None or other is None or one.shape != other.shape:
        return 0.0
    return float(one @ other)


async def _put_aside_by(
    connection: AsyncConnection, rule_id: str, *, same_letters: bool
) -> str | None:
    """Who retired or rejected a rule, where that speaks against its words; None where it does not.
    `same_letters`: what the gate found useless is not to be tried again for a missing full stop."""
    moves = [
        event
        for event in await events.of_rule(connection, rule_id)
        if (event.before or {}).get("state") != (event.after or {}).get("state")
    ]
    if not moves or moves[-1].actor in (events.POLICY, events.LEARNER, events.SYSTEM):
        return None
    told = str((moves[-1].after or {}).get("reason") or "")
    if told.startswith((rule_writes.PRUNED, rule_writes.MERGED_INTO)):
        return None
    if moves[-1].actor == events.GATE and not same_letters:
        known = await standings.find(connection, rule_id)
        if known is None or known.verdict is not Verdict.HARMFUL:
            return None
    return moves[-1].actor


async def _link_opposites(
    context: StoreContext, connection: AsyncConnection, rule: Rule, draft: Draft
) -> None:
    """Notes which rules of the other polarity say the opposite; evidence settles it when one
    of them is promoted (`EvidenceOperations.record_trial`)."""
    vector = draft.vectors.text
    if vector is None:
        return
    other = Polarity.NEGATIVE if rule.polarity is Polarity.POSITIVE else Polarity.POSITIVE
    near = context.index.duplicates(rule.namespace, other, vector, OPPOSITE_COSINE)
    for _, seq in near[:OPPOSITES]:
        against = await rules.find_by_seq(connection, seq)
        if against is not None and contradict(rule.text, against.text):
            await links.add(
                connection,
                rule.namespace,
                rule.id,
                LinkKind.CONTRADICTS,
                against.id,
                context.clock(),
            )


async def _same(context: StoreContext, connection: AsyncConnection, draft: Draft) -> Rule | None:
    """The rule of the same text in any state (what an operator retired stays retired), else
    the nearest active or candidate one within the merge threshold."""
    new, vector = draft.rule, draft.vectors.text
    exact = await rules.find_by_text(
        connection, new.namespace, new.polarity, rule_writes.text_hash(new.text)
    )
    if exact is not None:
        return exact[1]
    # A draft that was refused adds nothing to the standing of an admitted rule.
    if new.state is RuleState.QUARANTINED or vector is None:
        return None
    near = context.index.duplicates(
        new.namespace, new.polarity, vector, context.options.merge_threshold
    )
    return await rules.find_by_seq(connection, near[0][1]) if near else None
