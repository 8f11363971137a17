"""Who hands learning jobs to the learner: on SQLite this process, in turn; on PostgreSQL see
`app.learning.postgres_queue`."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from structlog.contextvars import clear_contextvars

from app.learning.learner import Learner
from rules_store.errors import LeaseLost, StoreError
from rules_store.models.jobs import Job
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

IDLE_WAIT = 1.0
"""Seconds between looks at the queue while nobody wakes the worker."""


class Worker(Protocol):
    """Works through learning jobs in the background."""

    learner: Learner
    backlog: int
    """Jobs waiting, as last seen in SQL."""

    def start(self) -> None: ...

    async def stop(self) -> None:
        """Puts jobs under way back into the queue, for the next start."""
        ...

    def wake(self) -> None:
        """To be called after a job has been committed."""
        ...


class LocalWorker:
    """Learns in the process whose database file it is.

    A job is leased while it is worked on; the lease is renewed and taken over by whoever finds it
    expired, so that a killed process loses nothing.
    """

    def __init__(
        self, store: RuleStore, learner: Learner, concurrency: int, heartbeat: float
    ) -> None:
        """`heartbeat`: seconds between renewals of a lease; well under its length."""
        self.learner = learner
        self.backlog = 0
        self._store = store
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._serve(), name=f"learner-{n}")
            for n in range(self._concurrency)
        ]

    def wake(self) -> None:
        self.backlog += 1
        self._wake.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _serve(self) -> None:
        while True:
            clear_contextvars()  # of the job before; its failure was to be told with its ids
            try:
                self.backlog = await self._store.jobs.waiting()
                job = await self._store.jobs.claim(self.learner.owner)
                if job is not None:
                    await self._run(job)
                    continue
                # Learning first: what it finds out is what is tried.
                if await self.learner.try_rules():
                    continue
            except LeaseLost as error:
                log.warning("lease lost", error=str(error))
            except StoreError as error:
                log.warning("learning waits for the store", error=str(error))
            except Exception as error:
                # A worker that died would stop learning silently.
                log.error("learning failed unexpectedly", error=error, exc_info=error)
            try:
                async with asyncio.timeout(IDLE_WAIT):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _run(self, job: Job) -> None:
        beat = asyncio.create_task(self._beat(job))
        try:
            await self.learner.run(job)
        finally:
            beat.cancel()

    async def _beat(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            try:
                await self._store.jobs.heartbeat(job)
            except StoreError as error:
                log.warning("heartbeat failed", episode=job.episode_id, error=str(error))
