"""How a distilled rule comes in: merged into the rule that says the same, or written anew."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.evidence import LinkKind
from rules_store.models.jobs import Job
from rules_store.models.rules import Draft, Learned, Polarity, Rule, RuleState
from rules_store.operations import capacity, rule_writes
from rules_store.operations.credit import CreditOperations
from rules_store.policy.contradiction import OPPOSITE_COSINE, OPPOSITES, contradict
from rules_store.repository import events, links, rules


class Admission(CreditOperations):
    async def _learn(self, connection: AsyncConnection, job: Job, draft: Draft) -> Learned:
        """Merges the draft into the rule that says the same, or inserts it."""
        new = draft.rule
        same = await self._same(connection, draft)
        key = f"{job.episode_id}:{new.polarity.value}"
        if same is not None:
            frequency = rule_writes.together(same.frequency, 1)
            after = replace(same, frequency=frequency, updated_at=self._clock())
            await rule_writes.change(
                connection,
                same,
                after,
                rule_writes.MERGED,
                actor=events.LEARNER,
                reason=f"learned again in {job.episode_id}",
                key=key,
            )
            await links.add(
                connection, new.namespace, same.id, LinkKind.SOURCE, job.episode_id, self._clock()
            )
            note = None if same.state is RuleState.ACTIVE else f"the same rule is {same.state}"
            return Learned(same.id, same.polarity, same.text, "merged", note)
        _, rule = await rule_writes.create(
            connection,
            replace(new, source_episode=job.episode_id),
            draft.vectors,
            self.embedding_model,
            self._clock(),
            actor=events.LEARNER,
            reason=new.reason or f"learned in {job.episode_id}",
            key=key,
        )
        await links.add(
            connection, rule.namespace, rule.id, LinkKind.SOURCE, job.episode_id, self._clock()
        )
        outcome = "created"
        if rule.state is RuleState.QUARANTINED:
            outcome = "quarantined"
        else:
            await self._link_opposites(connection, rule, draft)
        return Learned(rule.id, rule.polarity, rule.text, outcome, rule.reason)

    async def _link_opposites(self, connection: AsyncConnection, rule: Rule, draft: Draft) -> None:
        """Notes which rules of the other polarity say the opposite; evidence settles it when one
        of them is promoted (`TrialOperations.record_trial`)."""
        vector = draft.vectors.text
        if vector is None:
            return
        other = Polarity.NEGATIVE if rule.polarity is Polarity.POSITIVE else Polarity.POSITIVE
        near = self._index.duplicates(rule.namespace, other, vector, OPPOSITE_COSINE)
        for _, seq in near[:OPPOSITES]:
            against = await rules.find_by_seq(connection, seq)
            if against is not None and contradict(rule.text, against.text):
                await links.add(
                    connection,
                    rule.namespace,
                    rule.id,
                    LinkKind.CONTRADICTS,
                    against.id,
                    self._clock(),
                )

    async def _drop_old_candidates(self, connection: AsyncConnection, namespace: str) -> None:
        """No more candidates wait than rules can be active: the oldest give way."""
        room = self._room(namespace).capacity
        reason = f"more than {room} candidates wait for trials"
        for seq in await rules.candidates_beyond(connection, namespace, room):
            await capacity.retire(connection, seq, self._clock(), reason)

    async def _same(self, connection: AsyncConnection, draft: Draft) -> Rule | None:
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
        near = self._index.duplicates(
            new.namespace, new.polarity, vector, self.options.merge_threshold
        )
        return await rules.find_by_seq(connection, near[0][1]) if near else None
