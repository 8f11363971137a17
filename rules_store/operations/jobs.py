"""Learning jobs in an operator's hands: looked at, tried again, paused, resumed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import InvalidTransition, UnknownJob
from rules_store.models import paging
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.jobs import JobFilter, JobRecord, JobState
from rules_store.models.paging import Page
from rules_store.operations.base import StoreCore
from rules_store.operations.namespaces import find
from rules_store.repository import episodes, events, jobs, namespaces

EVERY_JOB = JobFilter()
EVERY_NAMESPACE = namespaces.EVERY


class JobControl(StoreCore):
    async def list_jobs(
        self, where: JobFilter = EVERY_JOB, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """`JobRecord`s, newest first. Raises InvalidCursor."""
        before = paging.decode("jobs", cursor)
        async with self._database.read() as connection:
            found, total = await jobs.page(connection, where, limit + 1, before)
        return paging.page("jobs", [(job.id, job) for job in found], total, limit)

    async def get_job(self, job_id: int) -> JobRecord:
        """Raises UnknownJob."""
        async with self._database.read() as connection:
            found = await jobs.record(connection, job_id)
        if found is None:
            raise UnknownJob(job_id)
        return found

    async def retry_failed_job(self, job_id: int, *, actor: str, reason: str) -> JobRecord:
        """A failed job waits again, with all its attempts before it.

        Raises UnknownJob, InvalidTransition, NamespaceFrozen.
        """
        now = self._clock()
        async with self._change() as connection:
            job = await jobs.find(connection, job_id)
            if job is None:
                raise UnknownJob(job_id)
            if job.state is not JobState.FAILED:
                raise InvalidTransition(
                    f"Job {job_id} is {job.state}; only a failed one is retried."
                )
            self._check_writable(job.namespace)
            await jobs.set_state(
                connection, job_id, JobState.PENDING, now, attempts=0, not_before=now
            )
            await self._hand_out(connection, job.episode_id, new=False)
            await episodes.conclude(
                connection, job.episode_id, now, EpisodeStatus.LEARNING, None, {}
            )
            await events.append(
                connection,
                now,
                job.namespace,
                "job.retried",
                actor=actor,
                reason=reason,
                before={"job": job_id, "attempts": job.attempts, "last_error": job.last_error},
                after={"job": job_id, "episode": job.episode_id},
            )
            retried = await jobs.record(connection, job_id)
            assert retried is not None
        return retried

    async def pause_learning(self, namespace: str | None, *, actor: str, reason: str) -> None:
        """Jobs of this namespace (None: of every one) wait until `resume_learning`, in whichever
        process; those under way end. Paused twice is paused once. Raises UnknownNamespace."""
        now = self._clock()

        async def pause(connection: AsyncConnection) -> None:
            await self._database.order_events(connection)
            name = await _name(connection, namespace)
            if await namespaces.pause(connection, name, now):
                await events.append(
                    connection, now, name, "learning.paused", actor=actor, reason=reason
                )

        await self._database.transact(pause)

    async def resume_learning(self, namespace: str | None, *, actor: str, reason: str) -> None:
        """Ends the pause of this namespace, or the one of all; each stands by itself.
        Raises UnknownNamespace."""
        now = self._clock()

        async def resume(connection: AsyncConnection) -> None:
            await self._database.order_events(connection)
            name = await _name(connection, namespace)
            if await namespaces.resume(connection, name):
                await events.append(
                    connection, now, name, "learning.resumed", actor=actor, reason=reason
                )

        await self._database.transact(resume)

    async def learning_pauses(self) -> Sequence[str]:
        """Names whose learning is paused, `EVERY_NAMESPACE` first if all is."""
        async with self._database.read() as connection:
            return sorted(await namespaces.paused(connection))


async def _name(connection: AsyncConnection, namespace: str | None) -> str:
    return EVERY_NAMESPACE if namespace is None else (await find(connection, namespace)).name
