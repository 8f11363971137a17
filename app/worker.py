"""Background learning: takes durable jobs, runs the loop, applies the result once.

A job is leased while it is worked on; the lease is renewed by a heartbeat and taken over by
whoever finds it expired, so that a killed process loses nothing. Nothing of SQL is held while the
model is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.exceptions import TTCLError, UpstreamRejected
from app.keying import retrieval_key
from app.loop import Loop
from app.trace import (
    contrast_from_json,
    observation_from_json,
    selection_to_json,
    trajectories_to_json,
)
from app.trajectory import Cost, DistilledRule, Observation
from app.upstream.embeddings import Embedder
from app.upstream.transport import forwarded_headers
from rules_store.errors import LeaseLost, NamespaceFrozen, StoreError
from rules_store.store import RuleStore
from rules_store.types import (
    Applied,
    Draft,
    Job,
    JobState,
    NewRule,
    RuleState,
    Spend,
    Vectors,
)

log = structlog.get_logger(__name__)

IDLE_WAIT = 1.0
"""Seconds between looks at the queue while nobody wakes the worker (other processes' jobs)."""
BUSY = (408, 429)
"""Refusals that may be over at the next try."""
BUDGET_SKIP = "budget_exhausted"
FROZEN_SKIP = "namespace_frozen"


@dataclass(slots=True)
class _Bill:
    """What a job has cost so far; due however it ends."""

    cost: Cost = field(default_factory=Cost)

    def add(self, cost: Cost) -> None:
        self.cost += cost

    @property
    def spend(self) -> Spend:
        return Spend(self.cost.calls, self.cost.tokens)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    concurrency: int
    calls_per_hour: int
    tokens_per_hour: int
    heartbeat: float
    """Seconds between renewals of a lease; well under its length."""


class LearningWorker:
    """Runs in the gateway's process; `wake` after a job has been committed."""

    def __init__(
        self, store: RuleStore, loop: Loop, embedder: Embedder, options: WorkerOptions
    ) -> None:
        self._store = store
        self._loop = loop
        self._embedder = embedder
        self._options = options
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.backlog = 0
        """Jobs waiting, as last seen in SQL."""
        self.outcomes: dict[str, int] = {}
        """How jobs ended in this process, by outcome; for metrics."""

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._serve(), name=f"learner-{n}")
            for n in range(self._options.concurrency)
        ]

    def wake(self) -> None:
        self.backlog += 1
        self._wake.set()

    async def stop(self) -> None:
        """Puts jobs under way back into the queue, for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _serve(self) -> None:
        while True:
            try:
                self.backlog = (await self._store.job_counts()).get(JobState.PENDING, 0)
                job = await self._store.claim_job(self._owner)
                if job is not None:
                    await self.run(job)
                    continue
            except LeaseLost as error:
                log.warning("lease lost", error=str(error))
            except StoreError as error:
                log.warning("learning waits for the store", error=str(error))
            except Exception as error:
                # A worker that died would stop learning silently.
                log.error("learning failed unexpectedly", error=repr(error), exc_info=error)
            try:
                async with asyncio.timeout(IDLE_WAIT):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def run(self, job: Job) -> None:
        """One job from claim to end: learned, skipped, failed, or back in the queue."""
        forwarded_headers.set({"X-Request-ID": job.episode_id})
        beat = asyncio.create_task(self._beat(job))
        bill = _Bill()
        try:
            outcome = await self._learn(job, bill)
        except asyncio.CancelledError:
            # Whatever the store says, the cancellation must get through; a lease ends by itself.
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._store.release_job(job))
            raise
        except TTCLError as error:
            outcome = await self._again_or_failed(job, error, bill)
        except (LeaseLost, StoreError):
            raise
        except Exception as error:
            log.error("job failed", episode=job.episode_id, error=repr(error), exc_info=error)
            await self._store.fail_job(
                job, f"internal: {type(error).__name__}: {error}", spend=bill.spend
            )
            outcome = "failed"
        finally:
            beat.cancel()
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        log.info("learning", episode=job.episode_id, namespace=job.namespace, outcome=outcome)

    async def _again_or_failed(self, job: Job, error: TTCLError, bill: _Bill) -> str:
        """Another try when the model server or the embedder may be back by then; none for a
        request that the server has refused."""
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, UpstreamRejected) and error.status not in BUSY:
            await self._store.fail_job(job, said, spend=bill.spend)
            return "failed"
        again = await self._store.retry_job(job, said, spend=bill.spend)
        return "retried" if again else "failed"

    async def _beat(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat)
            try:
                await self._store.heartbeat(job)
            except StoreError as error:
                log.warning("heartbeat failed", episode=job.episode_id, error=str(error))

    async def _learn(self, job: Job, bill: _Bill) -> str:
        if self._store.is_frozen(job.namespace):
            await self._store.skip_job(job, FROZEN_SKIP)
            return "skipped"
        if await self._budget_used_up(job.namespace):
            await self._store.skip_job(job, BUDGET_SKIP)
            return "skipped"
        observation = observation_from_json(job.payload["observation"])
        trace: dict[str, Any] = {}
        if "contrast" in job.payload:
            selection = contrast_from_json(job.payload["contrast"])
        else:
            exploration = await self._loop.explore(observation, background=True)
            selection = exploration.selection
            bill.add(exploration.cost)
            trace = {
                "trajectories": trajectories_to_json(exploration.trajectories, selection),
                "selection": selection_to_json(selection),
                "learning_problems": list(exploration.problems),
            }
        if selection.better is None:
            reason = f"no_contrast:{selection.case.value}"
            trace["learning_cost"] = bill.cost.as_dict()
            await self._store.skip_job(job, reason, trace=trace, spend=bill.spend)
            return "skipped"
        distillation = await self._loop.distil(observation, selection, background=True)
        bill.add(distillation.cost)
        trace["distiller"] = {"prompt": distillation.prompt, "raw": distillation.raw}
        trace["learning_cost"] = bill.cost.as_dict()
        if not distillation.rules:
            await self._store.skip_job(
                job, "distiller_wrote_nothing", trace=trace, spend=bill.spend
            )
            return "skipped"
        drafts = await drafts_of(observation, distillation.rules, self._embedder)
        try:
            applied: Applied = await self._store.apply_learning(
                job, drafts, trace=trace, spend=bill.spend
            )
        except NamespaceFrozen:
            # Since the job began.
            await self._store.skip_job(job, FROZEN_SKIP, trace=trace, spend=bill.spend)
            return "skipped"
        return "already_applied" if applied.already else "learned"

    async def _budget_used_up(self, namespace: str) -> bool:
        own = self._store.settings_of(namespace)
        calls, tokens = own.calls_per_hour, own.tokens_per_hour
        spent = await self._store.spend_last_hour(namespace)
        return spent.calls >= (self._options.calls_per_hour if calls is None else calls) or (
            spent.tokens >= (self._options.tokens_per_hour if tokens is None else tokens)
        )


async def drafts_of(
    observation: Observation, rules: Sequence[DistilledRule], embedder: Embedder
) -> list[Draft]:
    """Distilled rules with their vectors, as the store takes them. Raises `EmbeddingFailed`."""
    drafts = []
    for rule in rules:
        key = retrieval_key(rule.trigger, observation.question)
        text, when = await embedder.embed([rule.text, key])
        new = NewRule(
            namespace=observation.namespace,
            polarity=rule.polarity,
            text=rule.text,
            trigger=rule.trigger,
            domain=observation.domain,
            state=RuleState.QUARANTINED if rule.refusal else RuleState.ACTIVE,
            reason=rule.refusal,
            source_episode=observation.episode_id,
        )
        drafts.append(Draft(new, Vectors(text=text, trigger=when)))
    return drafts
