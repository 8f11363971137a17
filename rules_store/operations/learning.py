"""Durable learning: jobs with leases, and the one transaction that applies a job's result: which
distilled rule is new, which merges into one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import clean
from rules_store.errors import InvalidVector, LeaseLost
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.evidence import NO_FINDINGS, Findings, LinkKind
from rules_store.models.jobs import NO_SPEND, Job, JobState, Spend
from rules_store.models.rules import (
    INDEXED_STATES,
    Applied,
    Draft,
    Learned,
    Polarity,
    Rule,
    RuleState,
)
from rules_store.operations import capacity, rule_writes
from rules_store.operations.credit import CreditOperations
from rules_store.policy.contradiction import OPPOSITE_COSINE, OPPOSITES, contradict
from rules_store.repository import episodes, events, jobs, links, rules

_LONGEST_DELAY = 300.0  # seconds between two attempts
_CLOCKS_APART = 60.0  # seconds that the clocks of two machines may differ by


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


class LearningOperations(Admission):
    # -- a job's life

    async def claim_job(
        self, owner: str, *, episode_id: str | None = None, handed_out: bool = False
    ) -> Job | None:
        """Takes the oldest due job (or this episode's), or one whose lease has run out.

        `handed_out`: a queue has given this episode's to `owner` alone and watches over it, so it
        gets no lease and whoever had it before has lost it.

        A job that was tried `options.max_attempts` times is failed instead. `owner` must be
        unique to the worker process.
        """
        now = self._clock()

        async def claim(connection: AsyncConnection) -> Job | None:
            while True:
                if handed_out and episode_id is not None:
                    job = await jobs.handed_out(connection, episode_id)
                else:
                    job = await jobs.next_due(connection, now, self._farthest, episode_id)
                if job is None:
                    return None
                if job.attempts < self.options.max_attempts:
                    break
                last = job.last_error or "the worker was lost"
                await self._give_up(
                    connection, job, f"gave up after {job.attempts} attempts: {last}", {}
                )
            taken = replace(
                job, state=JobState.RUNNING, attempts=job.attempts + 1, owner=owner, updated_at=now
            )
            await jobs.set_state(
                connection,
                job.id,
                JobState.RUNNING,
                now,
                attempts=taken.attempts,
                owner=owner,
                lease_until=None if handed_out else now + timedelta(seconds=self.options.lease),
            )
            return taken

        return await self._database.transact(claim)

    async def heartbeat(self, job: Job) -> None:
        """Renews the lease. Raises LeaseLost."""
        now = self._clock()
        until = now + timedelta(seconds=self.options.lease)

        async def renew(connection: AsyncConnection) -> None:
            if not await jobs.renew(connection, job, until, now):
                raise LeaseLost(job.id)

        await self._database.transact(renew)

    async def skip_job(
        self,
        job: Job,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
        findings: Findings = NO_FINDINGS,
    ) -> None:
        """Nothing to learn: job done, episode skipped with this reason. Raises LeaseLost."""
        now = self._clock()

        async def skip(connection: AsyncConnection) -> None:
            await self._held(connection, job)
            await self._spend(connection, job.namespace, spend)
            await jobs.set_state(connection, job.id, JobState.DONE, now)
            await self._find_out(connection, job.namespace, job.episode_id, findings)
            await episodes.conclude(
                connection, job.episode_id, now, EpisodeStatus.SKIPPED, clean(reason), trace or {}
            )

        await self._database.transact(skip)

    async def retry_job(self, job: Job, error: str, *, spend: Spend = NO_SPEND) -> bool:
        """Puts it back with a growing delay; False when that was the last attempt and job and
        episode are failed now. Raises LeaseLost."""
        now = self._clock()

        async def put_back(connection: AsyncConnection) -> bool:
            await self._held(connection, job)
            await self._spend(connection, job.namespace, spend)
            if job.attempts >= self.options.max_attempts:
                reason = f"gave up after {job.attempts} attempts: {error}"
                await self._give_up(connection, job, reason, {})
                return False
            delay = min(_LONGEST_DELAY, self.options.retry_delay * 2 ** (job.attempts - 1))
            await jobs.set_state(
                connection,
                job.id,
                JobState.PENDING,
                now,
                not_before=now + timedelta(seconds=delay),
                last_error=clean(error),
            )
            return True

        return await self._database.transact(put_back)

    async def fail_job(
        self,
        job: Job,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
    ) -> None:
        """Gives up: job and episode failed with this reason. Raises LeaseLost."""

        async def fail(connection: AsyncConnection) -> None:
            await self._held(connection, job)
            await self._spend(connection, job.namespace, spend)
            await self._give_up(connection, job, reason, trace or {})

        await self._database.transact(fail)

    async def release_job(self, job: Job) -> None:
        """Puts it back at once, the attempt not counted (draining). Raises LeaseLost."""

        async def release(connection: AsyncConnection) -> None:
            await self._held(connection, job)
            await jobs.set_state(
                connection, job.id, JobState.PENDING, self._clock(), attempts=job.attempts - 1
            )

        await self._database.transact(release)

    async def job_counts(self) -> dict[JobState, int]:
        """Every state, with 0 where there is no job."""
        async with self._database.read() as connection:
            counts = await jobs.counts(connection)
        return {state: counts.get(state.value, 0) for state in JobState}

    async def jobs_waiting(self) -> int:
        async with self._database.read() as connection:
            return await jobs.waiting(connection)

    async def jobs_due(self, overdue: timedelta, *, limit: int) -> list[str]:
        """Episodes whose jobs nobody has taken up for that long, though nothing holds them back,
        or that run without a lease; the oldest first."""
        async with self._database.read() as connection:
            return await jobs.due(connection, self._clock() - overdue, self._farthest, limit)

    @property
    def _farthest(self) -> timedelta:
        return timedelta(seconds=max(_LONGEST_DELAY, self.options.lease) + _CLOCKS_APART)

    async def _held(self, connection: AsyncConnection, job: Job) -> None:
        """Raises LeaseLost unless this worker still holds the job."""
        now = await jobs.find(connection, job.id)
        if now is None or (now.state, now.owner, now.attempts) != (
            JobState.RUNNING,
            job.owner,
            job.attempts,
        ):
            raise LeaseLost(job.id)

    async def _give_up(
        self, connection: AsyncConnection, job: Job, reason: str, trace: dict[str, Any]
    ) -> None:
        now, reason = self._clock(), clean(reason)
        await jobs.set_state(connection, job.id, JobState.FAILED, now, last_error=reason)
        await episodes.conclude(
            connection, job.episode_id, now, EpisodeStatus.FAILED, reason, trace
        )

    # -- applying

    async def apply_learning(
        self,
        job: Job,
        drafts: Sequence[Draft],
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
        findings: Findings = NO_FINDINGS,
    ) -> Applied:
        """Rules, events, findings, spend, the episode (`learned`) and the job (`done`) in one
        transaction.

        At most one draft per polarity. `trace` entries replace those of the same name in the
        episode's trace; `rules_learned` is added to it. A job that is done already changes nothing
        (`Applied.already`). Raises LeaseLost, NamespaceFrozen, InvalidVector, StoreUnavailable.
        """
        ready = self._checked(job, drafts)
        now = self._clock()
        async with self._change() as connection:
            stored = await jobs.find(connection, job.id)
            if stored is not None and stored.state is JobState.DONE:
                return Applied(already=True)
            await self._held(connection, job)
            self._check_writable(job.namespace)
            learned = [await self._learn(connection, job, draft) for draft in ready]
            created = [
                item.rule_id
                for item, draft in zip(learned, ready, strict=True)
                if item.outcome == "created" and draft.rule.state is RuleState.ACTIVE
            ]
            await self._drop_old_candidates(connection, job.namespace)
            evicted = await capacity.make_room(
                connection,
                self._index,
                self.embedding_model,
                job.namespace,
                self._room(job.namespace),
                now,
                created,
            )
            await self._spend(connection, job.namespace, spend)
            await jobs.set_state(connection, job.id, JobState.DONE, now)
            await self._find_out(connection, job.namespace, job.episode_id, findings)
            await episodes.conclude(
                connection,
                job.episode_id,
                now,
                EpisodeStatus.LEARNED,
                None,
                {**(trace or {}), "rules_learned": [asdict(item) for item in learned]},
            )
        return Applied(tuple(learned), tuple(evicted))

    def _checked(self, job: Job, drafts: Sequence[Draft]) -> list[Draft]:
        """Drafts with unit vectors. Raises InvalidVector, ValueError."""
        if len({draft.rule.polarity for draft in drafts}) < len(drafts):
            raise ValueError("a job has at most one draft per polarity")
        ready = [Draft(draft.rule, self._units(draft.vectors)) for draft in drafts]
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

    # -- budget

    async def record_spend(self, namespace: str, spend: Spend) -> None:

        async def add(connection: AsyncConnection) -> None:
            await self._spend(connection, namespace, spend)

        await self._database.transact(add)

    async def spend_last_hour(self, namespace: str) -> Spend:
        """What learning cost in this namespace within the last 60 minutes."""
        async with self._database.read() as connection:
            return await jobs.spend_since(connection, namespace, self._minute() - 59)

    async def _spend(self, connection: AsyncConnection, namespace: str, spend: Spend) -> None:
        if spend.calls or spend.tokens:
            minute = self._minute()
            await jobs.add_spend(connection, namespace, minute, spend, oldest=minute - 120)

    def _minute(self) -> int:
        return int(self._clock().timestamp()) // 60
