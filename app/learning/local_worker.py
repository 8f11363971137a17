"""Who hands learning jobs to the learner: on SQLite this process, in turn; on PostgreSQL see
`app.learning.postgres_queue`."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

import structlog
from structlog.contextvars import clear_contextvars

from app.learning.learner import Learner
from rules_store.errors import LeaseLost, StoreError
from rules_store.models.jobs import Job
from rules_store.policy.turns import Tenant
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

IDLE_WAIT = 1.0
"""Seconds between looks at the queue while nobody wakes the worker."""


def settled_at(store: RuleStore) -> float:
    """Of a process that begins now, by the monotonic clock: when it may try what the process before
    it ended with. Killed again and again by something else it never does, and no job is blamed."""
    return time.monotonic() + 2 * store.options.lease


class Worker(Protocol):
    """Works through learning jobs in the background."""

    learner: Learner
    backlog: Backlog

    def start(self) -> None: ...

    async def stop(self) -> None:
        """Puts jobs under way back into the queue, for the next start."""
        ...

    def wake(self, tenant: Tenant | None = None) -> None:
        """To be called after a job of this key and namespace has been committed, or where one may
        have become due again."""
        ...


class Backlog:
    """Jobs waiting, by key and namespace: as last seen in SQL, and those announced since."""

    def __init__(self) -> None:
        self._waiting: dict[Tenant, int] = {}

    @property
    def total(self) -> int:
        return sum(self._waiting.values())

    def seen(self, waiting: dict[Tenant, int]) -> None:
        self._waiting = dict(waiting)

    def add(self, tenant: Tenant) -> None:
        self._waiting[tenant] = self._waiting.get(tenant, 0) + 1

    def full(self, tenant: Tenant, most: int) -> bool:
        """Whether one more of this tenant is too much: there is room for `most`, and where they are
        there already, still for a key that has less than an equal share of it. Of a key that has
        its share there is room once more for namespaces that have less than an equal part of it."""
        if self.total < most:
            return False
        known = self._waiting.keys() | {tenant}
        keys = len({key for key, _ in known})
        own = [each for each in known if each[0] == tenant[0]]
        of_key = keys * sum(self._waiting.get(each, 0) for each in own)
        if of_key < most:
            return False
        return of_key >= 2 * most or self._waiting.get(tenant, 0) * keys * len(own) >= most


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
        self.backlog = Backlog()
        self._store = store
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._wake = asyncio.Event()
        self._settled_at = math.inf
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._settled_at = settled_at(self._store)
        self._tasks = [
            asyncio.create_task(self._serve(), name=f"learner-{n}")
            for n in range(self._concurrency)
        ]

    def wake(self, tenant: Tenant | None = None) -> None:
        if tenant is not None:
            self.backlog.add(tenant)
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
                self.backlog.seen(await self._store.jobs.waiting())
                suspects = time.monotonic() >= self._settled_at
                job = await self._store.jobs.claim(self.learner.owner, suspects=suspects)
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
