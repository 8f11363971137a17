"""Learning jobs on PostgreSQL: procrastinate hands them out to whichever process works on them.

The job itself is a row of the store, committed with its episode; in the same transaction an entry
that names it goes into procrastinate's queue. When an entry is handed out, to whom, and
again after its process has died, is procrastinate's to say: the row has no lease here. It counts
the attempts, and one that was passed on can't be applied by who had it before. An entry that was
lost is made again from the row (`mend`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from datetime import UTC, datetime, timedelta

import procrastinate
import psycopg
import structlog
from procrastinate import exceptions
from procrastinate.jobs import Job as Entry

from app.exceptions import ConfigurationError
from app.learning.learner import Learner
from app.learning.local_worker import Backlog, settled_at
from rules_store.errors import LeaseLost, StoreError
from rules_store.policy.turns import Tenant
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

QUEUE = "ttcl_learning"
TASK = "ttcl.learn"
LOOK = 1.0
"""Seconds between looks at what waits."""
MEND = 5.0
"""Seconds between looks for jobs that no entry stands for, and how long they have been due."""
PATIENCE = 5.0
"""Seconds for a connection, and for jobs under way to go back when the process ends."""
_AT_ONCE = 1000
_AHEAD = """
WITH own AS (SELECT namespace, key_id FROM jobs WHERE key = %(key)s), waiting AS (
    SELECT jobs.namespace, count(*) AS jobs FROM jobs JOIN own
    ON jobs.key_id IS NOT DISTINCT FROM own.key_id
    WHERE jobs.state = 'pending' AND jobs.key <> %(key)s GROUP BY jobs.namespace
), turn AS (
    SELECT 1 + coalesce(sum(waiting.jobs), 0) AS own FROM waiting JOIN own USING (namespace)
)
SELECT coalesce(sum(least(waiting.jobs, turn.own)), 0) FROM waiting, turn
"""
"""Jobs of its API key that come before a job where the key's namespaces take turns."""
_SCHEMA_LOCK = 0x7474636D  # advisory: 'ttcm'
_BROKEN = (exceptions.ConnectorException, psycopg.Error, StoreError, OSError)


class TriedAgain(Exception):
    """The job waits for its next attempt, at a time that the store has set."""

    def __init__(self, at: datetime) -> None:
        super().__init__(f"next attempt at {at.isoformat()}")
        self.at = at


class GivenUp(Exception):
    """The job has failed for good; its entry stays as a dead letter."""


class _Again(procrastinate.BaseRetryStrategy):
    def get_retry_decision(
        self, *, exception: BaseException, job: Entry
    ) -> procrastinate.RetryDecision | None:
        if isinstance(exception, TriedAgain):
            return procrastinate.RetryDecision(retry_at=exception.at)
        if isinstance(exception, GivenUp):
            return None
        # A process that stops, a store that is down: another one goes on.
        pause = 0.0 if isinstance(exception, asyncio.CancelledError) else MEND
        return procrastinate.RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=pause))


class LearningQueue:
    """The queue of one database. `put` needs no connection of its own."""

    def __init__(self, address: str, *, lease: float) -> None:
        """`address`: a postgresql:// URL. `lease`: seconds without a sign of life after which a
        process counts as lost and its entries go to others."""
        self._address = address
        self.lease = lease
        self.app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(
                conninfo=self._address,
                min_size=1,
                max_size=4,
                timeout=PATIENCE,
                kwargs={
                    "application_name": "ttcl queue",
                    "connect_timeout": 5,
                    # A pooler may stand between: what was prepared there is known nowhere.
                    "prepare_threshold": None,
                },
            )
        )

    async def prepare(self) -> None:
        """Makes procrastinate's tables where there are none. Raises `ConfigurationError`."""
        try:
            async with await psycopg.AsyncConnection.connect(self._address) as connection:
                # Several processes may start at once.
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SCHEMA_LOCK])
                found = await connection.execute("SELECT to_regclass('procrastinate_jobs')")
                if (await found.fetchone() or (None,))[0] is None:
                    schema = self.app.schema_manager.get_schema()
                    await connection.execute(schema)
        except psycopg.Error as error:
            raise ConfigurationError(f"The learning queue can't be made: {error}.") from error

    async def put(self, connection: psycopg.AsyncConnection, key: str, *, new: bool) -> None:
        """An entry for the job of this key, in the connection's transaction. `new`: it never
        had one; otherwise nothing happens where one is waiting."""
        # Higher goes first: the n-th that waits of each key before the next one of any, so that one
        # that floods waits for itself alone.
        found = await connection.execute(_AHEAD, {"key": key})
        ahead = int((await found.fetchone() or (0,))[0])
        if new:
            await self._put(key, connection, ahead)
            return
        with contextlib.suppress(exceptions.AlreadyEnqueued):
            async with connection.transaction():  # a savepoint
                await self._put(key, connection, ahead)

    async def _put(self, key: str, connection: object | None = None, ahead: int = 0) -> None:
        deferrer = self.app.configure_task(
            TASK,
            queue=QUEUE,
            priority=-ahead,
            queueing_lock=_lock(key),
            connection=connection,
        )
        await deferrer.defer_async(key=key)

    async def mend(self, due: list[str]) -> int:
        """Entries for those of these jobs that have none, and those of lost processes back into the
        queue; how many."""
        mended = 0
        for entry in await self.app.job_manager.get_stalled_jobs(
            queue=QUEUE, seconds_since_heartbeat=self.lease
        ):
            await self.app.job_manager.retry_job(entry)
            mended += 1
        # No pause is as long: the clock has been put back since it was set.
        await self.app.connector.execute_query_async(
            "UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo' "
            "AND queue_name = %(queue)s AND scheduled_at > now() + interval '10 minutes'",
            queue=QUEUE,
        )
        waiting = await self.app.connector.execute_query_all_async(
            "SELECT queueing_lock FROM procrastinate_jobs "
            "WHERE status IN ('todo', 'doing') AND queueing_lock = ANY(%(locks)s)",
            locks=[_lock(key) for key in due],
        )
        there = {row["queueing_lock"] for row in waiting}
        for key in due:
            if _lock(key) not in there:
                # Another process may have been first.
                with contextlib.suppress(exceptions.AlreadyEnqueued):
                    await self._put(key)
                    mended += 1
        return mended


def _lock(key: str) -> str:
    return f"learn:{key}"


class QueueWorker:
    """Works on what the queue hands out; with a concurrency of 0 it only looks how much waits."""

    def __init__(
        self, store: RuleStore, learner: Learner, queue: LearningQueue, concurrency: int
    ) -> None:
        self.learner = learner
        self.backlog = Backlog()
        self._settled_at = math.inf
        self._store = store
        self._queue = queue
        self._concurrency = concurrency
        self._working = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False
        self._stopped = False
        """A cancellation can get lost: where the database is away, another error replaces it."""
        queue.app.task(name=TASK, queue=QUEUE, retry=_Again())(self._learn)

    def start(self) -> None:
        self._settled_at = settled_at(self._store)
        self._tasks = [asyncio.create_task(self._watch(), name="learning-backlog")]
        if self._concurrency:
            self._tasks.append(asyncio.create_task(self._serve(), name="learning-queue"))

    def wake(self, tenant: Tenant | None = None) -> None:
        if tenant is not None:
            self.backlog.add(tenant)  # the database wakes whoever works on it

    async def stop(self) -> None:
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        # A database that is gone takes no jobs back; their leases end by themselves.
        _, left = await asyncio.wait(self._tasks, timeout=PATIENCE)
        if left:
            log.warning("stopped without the database")
        self._tasks = []

    async def _learn(self, key: str) -> None:
        suspects = time.monotonic() >= self._settled_at
        job = await self._store.jobs.claim(
            self.learner.owner, key=key, handed_out=True, suspects=suspects
        )
        if job is None:
            return  # ended, or it has to wait; then `mend` brings it back
        self._working += 1
        try:
            outcome = await self.learner.run(job)
        except LeaseLost as error:
            # Missed for a while, so another process has got it: trying again would take it away.
            log.warning("job lost", error=str(error))
            return
        finally:
            self._working -= 1
        if outcome == "retried":
            raise TriedAgain((await self._store.jobs.get(job.id)).not_before)
        if outcome == "failed":
            raise GivenUp(key)

    async def _serve(self) -> None:
        """Until stopped, however often the database goes away."""
        while not self._stopped:
            try:
                async with self._queue.app.open_async():
                    self._open = True
                    await self._queue.app.run_worker_async(
                        queues=[QUEUE],
                        name=self.learner.owner,
                        concurrency=self._concurrency,
                        install_signal_handlers=False,
                        delete_jobs="successful",
                        update_heartbeat_interval=self._queue.lease / 3,
                        stalled_worker_timeout=self._queue.lease,
                        # Cancelled at once, jobs go back with their attempt not counted.
                        shutdown_graceful_timeout=0.0,
                    )
            except _BROKEN as error:
                log.warning("learning waits for the database", error=str(error))
            except Exception as error:
                # A worker that ended would stop learning silently.
                log.error("learning failed unexpectedly", error=error, exc_info=error)
            finally:
                self._open = False
            await asyncio.sleep(LOOK)

    async def _watch(self) -> None:
        """How much waits; and, in a process that learns, what was lost and what is to be tried."""
        looks = 0
        while not self._stopped:
            try:
                self.backlog.seen(await self._store.jobs.waiting())
                if self._concurrency and self._open:
                    if looks % round(MEND / LOOK) == 0:
                        await self._mend()
                    while not self._working and await self.learner.try_rules():
                        pass
                looks += 1
            except LeaseLost as error:
                log.warning("lease lost", error=str(error))
            except _BROKEN as error:
                log.warning("learning waits for the database", error=str(error))
            except Exception as error:
                log.error("learning failed unexpectedly", error=error, exc_info=error)
            await asyncio.sleep(LOOK)

    async def _mend(self) -> None:
        due = await self._store.jobs.due(timedelta(seconds=MEND), limit=_AT_ONCE)
        if mended := await self._queue.mend(due):
            log.info("learning jobs handed out again", count=mended)
