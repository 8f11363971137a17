"""Learning jobs: durable, with leases and retries in a worker's hands; looked at, tried again,
paused and resumed in an operator's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import InvalidTransition, LeaseLost, UnknownJob
from rules_store.models import paging
from rules_store.models.effect import Purpose
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Change
from rules_store.models.evidence import NO_FINDINGS, Findings, LinkKind
from rules_store.models.feedback import Completion
from rules_store.models.jobs import (
    NO_SPEND,
    Job,
    JobFilter,
    JobKind,
    JobRecord,
    JobState,
    Spend,
)
from rules_store.models.paging import Page
from rules_store.models.rules import Draft, LearningResult, RuleState
from rules_store.operations import capacity, example_writes, learning, teaching_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.credit import store_findings
from rules_store.operations.namespaces import find
from rules_store.policy.turns import Tenant, Turns
from rules_store.repository import effect, episodes, events, jobs, links, namespaces

logger = logging.getLogger(__name__)

EVERY_JOB = JobFilter()
MOST_LOST = 2
"""Processes that may end with a job in hand before it is set aside."""
EVERY_NAMESPACE = namespaces.EVERY
_PURPOSES = {
    JobKind.EPISODE: Purpose.EXPLORATION,
    JobKind.FEEDBACK: Purpose.FEEDBACK,
    None: Purpose.REPLAY,
}
_LONGEST_DELAY = 300.0  # seconds between two attempts
_ENDED = (EpisodeStatus.SKIPPED, EpisodeStatus.LEARNED, EpisodeStatus.FAILED)
_CLOCKS_APART = 60.0  # seconds that the clocks of two machines may differ by


class JobOperations:
    """`store.jobs`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._turns = Turns()

    def hand_out_to(self, queue: jobs.HandOut) -> None:
        """From now on `queue` is told of each job in the transaction that makes it due."""
        self._context.hand_out = queue

    # -- a job's life

    async def claim(
        self,
        owner: str,
        *,
        key: str | None = None,
        handed_out: bool = False,
        suspects: bool = True,
    ) -> Job | None:
        """Takes the oldest due job (or the one of this key), or one whose lease has run out, of the
        API key that was served least lately, and of its namespaces likewise.

        `handed_out`: a queue has given this one to `owner` alone and watches over it, so it
        gets no lease and whoever had it before has lost it. `owner` must be unique to the worker
        process.

        A try that was lost with its process says nothing of the job, and is no attempt; but a job
        that was lost twice is set aside (failed, with that reason), since it may be what ends
        processes. `suspects` False: those that were lost once wait on; a process that has just
        begun had better do something first.
        """
        now = self._context.clock()
        lease = timedelta(seconds=self._context.options.lease)

        async def claim(connection: AsyncConnection) -> Job | None:
            while True:
                if handed_out and key is not None:
                    job = await jobs.handed_out(connection, key)
                else:
                    job = await self._next_due(connection, now, key, suspects)
                if job is None:
                    return None
                job = await self._noted(connection, job, owner)
                if job is None:
                    continue
                if job.lost and not suspects:
                    if key is not None:
                        return None
                    continue
                if job.attempts < self._context.options.max_attempts:
                    break
                await self._give_up(connection, job, _gave_up(job, job.last_error), {})
            taken = replace(
                job, state=JobState.RUNNING, attempts=job.attempts + 1, owner=owner, updated_at=now
            )
            await jobs.set_state(
                connection,
                job.id,
                JobState.RUNNING,
                now,
                attempts=taken.attempts,
                lost=taken.lost,
                owner=owner,
                lease_until=None if handed_out else now + lease,
            )
            self._turns.took((taken.key_id or "", taken.namespace))
            return taken

        return await self._context.database.transact(claim)

    async def _next_due(
        self, connection: AsyncConnection, now: datetime, key: str | None, suspects: bool
    ) -> Job | None:
        if key is not None:
            return await jobs.next_due(connection, now, self._farthest, key=key, suspects=suspects)
        waiting = await jobs.tenants_due(connection, now, self._farthest, suspects=suspects)
        for tenant in self._turns.order(waiting):
            job = await jobs.next_due(
                connection, now, self._farthest, tenant=tenant, suspects=suspects
            )
            if job is not None:  # else another worker is at it
                return job
        return None

    async def _noted(self, connection: AsyncConnection, job: Job, owner: str) -> Job | None:
        """The job, as waiting: of one that its process was lost with, that is written down. None
        where that was once too often, and it has been set aside."""
        if job.state is not JobState.RUNNING:
            return job
        if job.owner == owner:
            return job  # who missed a lease and comes again has not ended
        lost = job.lost + 1
        back = replace(job, state=JobState.PENDING, attempts=max(0, job.attempts - 1), lost=lost)
        now = self._context.clock()
        values = {"attempts": back.attempts, "lost": lost}
        await jobs.set_state(connection, job.id, JobState.PENDING, now, **values)
        if lost < MOST_LOST:
            return back
        reason = f"set aside: the process ended {lost} times while it worked on this"
        logger.warning("learning job %d (%s) %s", job.id, job.key, reason)
        await self._give_up(connection, back, reason, {})
        return None

    async def heartbeat(self, job: Job) -> None:
        """Renews the lease. Raises LeaseLost."""
        now = self._context.clock()
        until = now + timedelta(seconds=self._context.options.lease)

        async def renew(connection: AsyncConnection) -> None:
            if not await jobs.renew(connection, job, until, now):
                raise LeaseLost(job.id)

        await self._context.database.transact(renew)

    async def skip(
        self,
        job: Job,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
        findings: Findings = NO_FINDINGS,
    ) -> None:
        """Nothing to learn: job done, episode skipped with this reason. Raises LeaseLost."""

        async def skip(connection: AsyncConnection) -> None:
            await _check_held(connection, job)
            status, why = EpisodeStatus.SKIPPED, storable(reason)
            await self._finish(connection, job, status, why, trace or {}, spend, findings)

        if findings.example is None:
            await self._context.database.transact(skip)
            return
        async with self._context.change() as connection:
            await skip(connection)

    async def retry(self, job: Job, error: str, *, spend: Spend = NO_SPEND) -> bool:
        """Puts it back with a growing delay; False when that was the last attempt and job and
        episode are failed now. Raises LeaseLost."""
        now = self._context.clock()

        async def put_back(connection: AsyncConnection) -> bool:
            await _check_held(connection, job)
            await self._spend(connection, job.namespace, spend, job.kind)
            if job.attempts >= self._context.options.max_attempts:
                await self._give_up(connection, job, _gave_up(job, error), {})
                return False
            delay = min(_LONGEST_DELAY, self._context.options.retry_delay * 2 ** (job.attempts - 1))
            await jobs.set_state(
                connection,
                job.id,
                JobState.PENDING,
                now,
                not_before=now + timedelta(seconds=delay),
                last_error=storable(error),
            )
            return True

        return await self._context.database.transact(put_back)

    async def fail(
        self,
        job: Job,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
    ) -> None:
        """Gives up: job and episode failed with this reason. Raises LeaseLost."""

        async def fail(connection: AsyncConnection) -> None:
            await _check_held(connection, job)
            await self._spend(connection, job.namespace, spend, job.kind)
            await self._give_up(connection, job, reason, trace or {})

        await self._context.database.transact(fail)

    async def release(self, job: Job) -> None:
        """Puts it back at once, the attempt not counted (draining). Raises LeaseLost."""

        async def release(connection: AsyncConnection) -> None:
            await _check_held(connection, job)
            await jobs.set_state(
                connection,
                job.id,
                JobState.PENDING,
                self._context.clock(),
                attempts=job.attempts - 1,
            )

        await self._context.database.transact(release)

    async def counts(self) -> dict[JobState, int]:
        """Every state, with 0 where there is no job."""
        async with self._context.database.read() as connection:
            counts = await jobs.counts(connection)
        return {state: counts.get(state.value, 0) for state in JobState}

    async def waiting(self) -> dict[Tenant, int]:
        """Pending jobs by API key and namespace, paused and delayed ones too."""
        async with self._context.database.read() as connection:
            return await jobs.waiting(connection)

    async def due(self, overdue: timedelta, *, limit: int) -> list[str]:
        """Keys of the jobs that nobody has taken up for that long, though nothing holds them back,
        or that run without a lease; the oldest first."""
        async with self._context.database.read() as connection:
            return await jobs.due(
                connection, self._context.clock() - overdue, self._farthest, limit
            )

    # -- applying

    async def apply(
        self,
        job: Job,
        drafts: Sequence[Draft],
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
        findings: Findings = NO_FINDINGS,
        completion: Completion | None = None,
    ) -> LearningResult:
        """Rules, events, findings, spend, the episode (`learned`) and the job (`done`) in one
        transaction. `completion`: the answer that an example has waited for.

        At most one draft per polarity. `trace` entries replace those of the same name in the
        episode's trace; `rules_learned` is added to it. A job that is done already changes nothing
        (`LearningResult.already`). Raises LeaseLost, NamespaceFrozen, InvalidVector;
        ValueError for drafts that are no such.
        """
        ready = learning.checked(self._context, job, drafts)
        async with self._context.change() as connection:
            stored = await jobs.find(connection, job.id)
            if stored is not None and stored.state is JobState.DONE:
                return LearningResult(already=True)
            await _check_held(connection, job)
            self._context.namespaces.check_writable(job.namespace)
            learned = [
                await learning.learn(self._context, connection, job, draft) for draft in ready
            ]
            active = [
                item.rule_id
                for item, draft in zip(learned, ready, strict=True)
                if item.outcome == "created" and draft.rule.state is RuleState.ACTIVE
            ]
            await capacity.drop_old_candidates(self._context, connection, job.namespace)
            evicted = await capacity.make_room(self._context, connection, job.namespace, active)
            if completion is not None:
                await teaching_writes.complete(self._context, connection, job, completion)
            await self._finish(
                connection,
                job,
                EpisodeStatus.LEARNED,
                None,
                {**(trace or {}), "rules_learned": [asdict(item) for item in learned]},
                spend,
                findings,
            )
        return LearningResult(tuple(learned), tuple(evicted))

    # -- budget

    async def record_spend(self, namespace: str, spend: Spend) -> None:
        """Adds a replay to what learning costs in this namespace."""

        async def add(connection: AsyncConnection) -> None:
            await self._spend(connection, namespace, spend)

        await self._context.database.transact(add)

    async def spend_last_hour(self, namespace: str) -> Spend:
        """What learning cost in this namespace within the last 60 minutes."""
        async with self._context.database.read() as connection:
            return await jobs.spend_since(connection, namespace, self._minute() - 59)

    async def lessons_paid(self, namespace: str, per_answer: float) -> float:
        """Calls of learning from feedback that the namespace's judged answers of the last two
        hours have paid for, `per_answer` each, and that were not made yet."""
        async with self._context.database.read() as connection:
            answers, calls = await jobs.lessons_since(
                connection, namespace, self._minute() - jobs.SPEND_KEPT
            )
        return answers * per_answer - calls

    # -- in an operator's hands

    async def get(self, job_id: int) -> JobRecord:
        """Raises UnknownJob."""
        async with self._context.database.read() as connection:
            found = await jobs.record(connection, job_id)
        if found is None:
            raise UnknownJob(job_id)
        return found

    async def retry_failed(self, job_id: int, *, change: Change) -> JobRecord:
        """A failed job waits again, with all its attempts before it.

        Raises UnknownJob, InvalidTransition, NamespaceFrozen.
        """
        now = self._context.clock()
        async with self._context.change() as connection:
            job = await jobs.find(connection, job_id)
            if job is None:
                raise UnknownJob(job_id)
            if job.state is not JobState.FAILED:
                raise InvalidTransition(
                    f"Job {job_id} is {job.state}; only a failed one is retried."
                )
            self._context.namespaces.check_writable(job.namespace)
            await jobs.set_state(
                connection, job_id, JobState.PENDING, now, attempts=0, lost=0, not_before=now
            )
            await self._context.announce_job(connection, job.key, new=False)
            if job.kind is JobKind.EPISODE:
                await episodes.conclude(
                    connection, job.episode_id, now, EpisodeStatus.LEARNING, None, {}
                )
            await events.append(
                connection,
                now,
                job.namespace,
                "job.retried",
                change,
                before={"job": job_id, "attempts": job.attempts, "last_error": job.last_error},
                after={"job": job_id, "episode": job.episode_id},
            )
            retried = await jobs.record(connection, job_id)
            assert retried is not None
        return retried

    async def pause(self, namespace: str | None, *, change: Change) -> None:
        """Jobs of this namespace (None: of every one) wait until `resume`, in whichever
        process; those under way end. Paused twice is paused once. Raises UnknownNamespace."""
        now = self._context.clock()

        async def pause(connection: AsyncConnection) -> None:
            await self._context.database.order_events(connection)
            name = await _name(connection, namespace)
            if await namespaces.pause(connection, name, now):
                await events.append(connection, now, name, "learning.paused", change)

        await self._context.database.transact(pause)

    async def resume(self, namespace: str | None, *, change: Change) -> None:
        """Ends the pause of this namespace, or the one of all; each stands by itself.
        Raises UnknownNamespace."""
        now = self._context.clock()

        async def resume(connection: AsyncConnection) -> None:
            await self._context.database.order_events(connection)
            name = await _name(connection, namespace)
            if await namespaces.resume(connection, name):
                await events.append(connection, now, name, "learning.resumed", change)

        await self._context.database.transact(resume)

    async def paused(self) -> Sequence[str]:
        """Names whose learning is paused, `EVERY_NAMESPACE` first if all is."""
        async with self._context.database.read() as connection:
            return sorted(await namespaces.paused(connection))

    # Last: below it the name of the builtin would mean this method.

    async def list(
        self, where: JobFilter = EVERY_JOB, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """`JobRecord`s, newest first. Raises InvalidCursor."""
        before = paging.decode("jobs", cursor)
        async with self._context.database.read() as connection:
            found, total = await jobs.page(connection, where, limit + 1, before)
        return paging.page("jobs", [(job.id, job) for job in found], total, limit)

    # -- steps of the transactions above

    @property
    def _farthest(self) -> timedelta:
        return timedelta(seconds=max(_LONGEST_DELAY, self._context.options.lease) + _CLOCKS_APART)

    async def _give_up(
        self, connection: AsyncConnection, job: Job, reason: str, trace: dict[str, Any]
    ) -> None:
        now, reason = self._context.clock(), storable(reason)
        await jobs.set_state(connection, job.id, JobState.FAILED, now, last_error=reason)
        await self._conclude(connection, job, EpisodeStatus.FAILED, reason, trace)

    async def _finish(
        self,
        connection: AsyncConnection,
        job: Job,
        status: EpisodeStatus,
        reason: str | None,
        trace: dict[str, Any],
        spend: Spend,
        findings: Findings,
    ) -> None:
        """The job is done, and its episode has come to this."""
        now = self._context.clock()
        await self._spend(connection, job.namespace, spend, job.kind)
        await jobs.set_state(connection, job.id, JobState.DONE, now)
        await store_findings(
            self._context, connection, job.namespace, job.episode_id, findings, job.key_id
        )
        await self._keep_example(connection, job, findings)
        await self._conclude(connection, job, status, reason, trace)

    async def _keep_example(
        self, connection: AsyncConnection, job: Job, findings: Findings
    ) -> None:
        if findings.example is None or self._context.namespaces.is_frozen(job.namespace):
            return
        vector = None if findings.precedent is None else findings.precedent.vector
        change = Change(events.LEARNER, f"the answers to {job.episode_id} agreed", job.key_id)
        made = await example_writes.keep(
            self._context, connection, findings.example, vector, change, key=f"{job.key}/consensus"
        )
        await links.add(
            connection,
            job.namespace,
            made.id,
            LinkKind.SOURCE,
            job.episode_id,
            self._context.clock(),
            job.key_id,
        )

    async def _conclude(
        self,
        connection: AsyncConnection,
        job: Job,
        status: EpisodeStatus,
        reason: str | None,
        trace: dict[str, Any],
    ) -> None:
        """What the job means for its episode. A lesson from feedback adds to what the episode's
        own learning has come to, and only ever makes it `learned`."""
        now = self._context.clock()
        if job.kind is JobKind.EPISODE:
            await episodes.conclude(connection, job.episode_id, now, status, reason, trace)
            return
        episode = await episodes.find(connection, job.episode_id)
        assert episode is not None, "a job refers to it"
        learned = trace.pop("rules_learned", [])
        before: dict[str, Any] = episode.trace
        trace = {
            "lessons": {**before.get("lessons", {}), job.key: {**trace, "skipped": reason}},
            "rules_learned": [*before.get("rules_learned", []), *learned],
        }
        raised = status is EpisodeStatus.LEARNED and episode.status in _ENDED
        await episodes.conclude(
            connection,
            job.episode_id,
            now,
            status if raised else episode.status,
            None if raised else episode.reason,
            trace,
        )

    async def _spend(
        self, connection: AsyncConnection, namespace: str, spend: Spend, kind: JobKind | None = None
    ) -> None:
        if spend.calls or spend.tokens:
            day = effect.day_of(self._context.clock())
            elsewhere = Spend(spend.distiller_calls, spend.distiller_tokens)
            served = Spend(spend.calls - elsewhere.calls, spend.tokens - elsewhere.tokens)
            for purpose, part in ((_PURPOSES[kind], served), (Purpose.DISTILLER, elsewhere)):
                if part != NO_SPEND:
                    await effect.add_spend(connection, namespace, day, purpose, part)
            minute = self._minute()
            await jobs.add_spend(
                connection,
                namespace,
                minute,
                spend,
                oldest=minute - jobs.SPEND_KEPT,
                lesson_calls=spend.calls if kind is JobKind.FEEDBACK else 0,
            )

    def _minute(self) -> int:
        return jobs.minute_of(self._context.clock())


async def _check_held(connection: AsyncConnection, job: Job) -> None:
    """Raises LeaseLost unless this worker still holds the job."""
    now = await jobs.find(connection, job.id)
    if now is None or (now.state, now.owner, now.attempts, now.lost) != (
        JobState.RUNNING,
        job.owner,
        job.attempts,
        job.lost,
    ):
        raise LeaseLost(job.id)


def _gave_up(job: Job, error: str | None) -> str:
    return f"gave up after {job.attempts} attempts: {error}"


async def _name(connection: AsyncConnection, namespace: str | None) -> str:
    return EVERY_NAMESPACE if namespace is None else (await find(connection, namespace)).name
