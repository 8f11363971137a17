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
    Polarity,
    Rule,
    RuleState,
)
from rules_store.operations import rule_writes
from rules_store.operations.context import StoreContext
from rules_store.policy.contradiction import OPPOSITE_COSINE, OPPOSITES, contradict
from rules_store.repository import events, links, rules


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
