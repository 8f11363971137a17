"""Background learning: runs the loop for a durable job and applies the result once.

No SQL transaction is open while the model is called. Handing out the jobs, and taking them back
from a process that was killed, is the work of `app.learning.local_worker` (SQLite) or
`app.learning.postgres_queue` (PostgreSQL).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from app.access.tenants import tenant
from app.domain import json_text
from app.domain.serialization import (
    contrast_from_json,
    observation_from_json,
    selection_to_json,
    trajectories_to_json,
)
from app.domain.trajectory import Case, Cost, Observation, Selection
from app.exceptions import TTCLError, UpstreamRejected, UpstreamTimeout
from app.learning.distilling import Distilling
from app.learning.drafts import drafts_of
from app.learning.evaluation.gatekeeper import Gatekeeper, worth_distilling
from app.learning.evaluation.outcomes import (
    agreement_outcome,
    consensus_example,
    precedent_of,
    teacher_text,
)
from app.learning.lessons import QUEUE_SKIP, WROTE_NOTHING, Teacher
from app.loop.effort_planner import EffortPlanner
from app.loop.loop import Distillation, Loop
from app.observability.metrics import Metrics
from app.observability.tracing import NO_TRACES, Tracer, set_attributes, span
from app.upstream.embeddings import Embedder
from app.upstream.transport import forwarded_headers
from rules_store.errors import LeaseLost, NamespaceFrozen, StoreError
from rules_store.models.effect import Purpose
from rules_store.models.evidence import NO_FINDINGS, Findings
from rules_store.models.examples import NewExample
from rules_store.models.feedback import Completion
from rules_store.models.jobs import Job, JobKind, Spend
from rules_store.models.rules import LearningResult
from rules_store.operations.jobs import EVERY_NAMESPACE
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

BUSY = (408, 429)
"""Refusals that may be over at the next try."""
BUDGET_SKIP = "budget_exhausted"
FROZEN_SKIP = "namespace_frozen"
SETTLED_SKIP = "neighbourhood_agrees"
"""The explored questions nearby had unanimous answers: there is little to learn here."""
TAUGHT_SKIP = "feedback_teaches"
"""Clients tell the namespace what is right: that teaches more, and costs a seventh."""
JUDGED_AMONG = 50
JUDGED_LEAST = 8
JUDGED_SHARE = 0.25
"""Share of the latest answered episodes that are judged by label, correction or verifier from which
nothing is explored without need; of fewer than the least nothing is concluded."""
MOST_DUE = 100.0
"""Replays that a namespace can have paid for in advance."""


NOTHING = Cost()


@dataclass(slots=True)
class _JobCost:
    """What a job has cost so far; due however it ends."""

    cost: Cost = field(default_factory=Cost)
    elsewhere: Cost = field(default_factory=Cost)
    """Of it, what another model than the served one took to write rules."""
    skipped: str | None = None
    """Why nothing was learned."""

    def add(self, cost: Cost, elsewhere: Cost = NOTHING) -> None:
        self.cost += cost
        self.elsewhere += elsewhere

    @property
    def spend(self) -> Spend:
        return Spend(self.cost.calls, self.cost.tokens, self.elsewhere.calls, self.elsewhere.tokens)


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    calls_per_hour: int
    tokens_per_hour: int
    replays_per_job: float = 0.0
    """Replays of candidates that one job pays for, in gated namespaces."""


class Learner:
    """What a job means. One a process: it says who holds the process's jobs."""

    def __init__(
        self,
        store: RuleStore,
        loop: Loop,
        embedder: Embedder,
        planner: EffortPlanner,
        gatekeeper: Gatekeeper,
        teacher: Teacher,
        distilling: Distilling,
        gated: Callable[[str], bool],
        judges: Callable[[str], bool],
        options: LearnerOptions,
        tracer: Tracer = NO_TRACES,
        rng: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`gated`: whether rules of a namespace must prove themselves before they steer. `judges`:
        whether the model is asked about each of its new rules. `rng` draws what is replayed; None:
        by chance."""
        self._store = store
        self._loop = loop
        self._embedder = embedder
        self._planner = planner
        self._gatekeeper = gatekeeper
        self._teacher = teacher
        self._distilling = distilling
        self._gated = gated
        self._judges = judges
        self._options = options
        self._tracer = tracer
        self._due: dict[str, float] = {}
        """Replays that the jobs of a namespace have paid for and that were not made yet."""
        self._rng = rng or random.Random()
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.metrics = metrics or Metrics()

    async def run(self, job: Job) -> str:
        """A claimed job to its end; what became of it: learned, already_applied, skipped, failed,
        or retried (it is to be tried again). Raises LeaseLost, StoreError."""
        forwarded_headers.set({"X-Request-ID": job.episode_id})
        origin: dict[str, str] = job.payload.get("origin", {})
        ids = {"episode": job.episode_id, "namespace": job.namespace}
        tenant.set(("", job.namespace))
        # Not unbound at the end: who runs the job may have a failure to tell.
        bind_contextvars(request_id=origin.get("request_id", job.episode_id), **ids)
        with self._tracer.work("learn", origin, attempt=job.attempts, **ids) as step:
            outcome = await self._run(job)
            set_attributes(step, outcome=outcome)
        return outcome

    async def _run(self, job: Job) -> str:
        bill = _JobCost()
        try:
            outcome = await self._learn(job, bill)
        except asyncio.CancelledError:
            # Whatever the store says, the cancellation must get through; the job is missed.
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._store.jobs.release(job))
            raise
        except TTCLError as error:
            outcome = await self._again_or_failed(job, error, bill)
        except (LeaseLost, StoreError):
            raise
        except Exception as error:
            log.error("job failed", episode=job.episode_id, error=error, exc_info=error)
            said = _unquoting(str(error), job.payload)
            reason = f"internal: {type(error).__name__}: {said}"
            await self._store.jobs.fail(job, reason, spend=bill.spend)
            outcome = "failed"
        self.metrics.learning_outcomes.labels(outcome).inc()
        lesson = job.kind is JobKind.FEEDBACK
        served = bill.cost - bill.elsewhere
        self.metrics.spent(Purpose.FEEDBACK if lesson else Purpose.EXPLORATION, served)
        self.metrics.spent(Purpose.DISTILLER, bill.elsewhere)
        # What asked no model has been learned from by nobody, and pays for nothing.
        if bill.cost.calls and self._gated(job.namespace):
            due = self._due.get(job.namespace, 0.0) + self._options.replays_per_job
            self._due[job.namespace] = min(due, MOST_DUE)
        why = {} if bill.skipped is None else {"reason": bill.skipped}
        log.info(
            "learning", episode=job.episode_id, namespace=job.namespace, outcome=outcome, **why
        )
        return outcome

    async def try_rules(self) -> bool:
        """One replay of a candidate of a namespace that has paid for one, and a look at what is in
        use there. False when there was nothing to do."""
        for namespace in [name for name, due in self._due.items() if due >= 1.0]:
            self._due[namespace] -= 1.0
            if await self._budget_used_up(namespace) or await self._paused(namespace):
                continue
            forwarded_headers.set({})
            tenant.set(("", namespace))
            with bound_contextvars(namespace=namespace):
                cost = await self._gatekeeper.step(namespace, self._rng, self._tracer)
                if cost is not None:
                    await self._store.jobs.record_spend(namespace, Spend(cost.calls, cost.tokens))
                    self.metrics.spent(Purpose.REPLAY, cost)
                await self._gatekeeper.review(namespace)
            return True
        return False

    async def _paused(self, namespace: str) -> bool:
        paused = await self._store.jobs.paused()
        return EVERY_NAMESPACE in paused or namespace in paused

    async def _again_or_failed(self, job: Job, error: TTCLError, bill: _JobCost) -> str:
        """Another try when the model server or the embedder may be back by then; none for a
        request that the server has refused."""
        said = f"{type(error).__name__}: {_unquoting(error.message, job.payload)}"
        if isinstance(error, UpstreamRejected) and error.status not in BUSY:
            await self._store.jobs.fail(job, said, spend=bill.spend)
            return "failed"
        again = await self._store.jobs.retry(job, said, spend=bill.spend)
        return "retried" if again else "failed"

    async def _learn(self, job: Job, bill: _JobCost) -> str:
        if self._store.namespaces.is_frozen(job.namespace):
            return await self._skip(job, bill, FROZEN_SKIP)
        if await self._budget_used_up(job.namespace):
            return await self._skip(job, bill, BUDGET_SKIP)
        if job.kind is JobKind.FEEDBACK:
            return await self._teach(job, bill)
        if "contrast" not in job.payload and await self._told_what_is_right(job.namespace):
            return await self._skip(job, bill, TAUGHT_SKIP)
        observation = observation_from_json(job.payload["observation"])
        vector = await self._planner.vector(observation)
        trace: dict[str, Any] = {}
        alone = False
        if "contrast" in job.payload:
            selection = contrast_from_json(job.payload["contrast"])
            teacher = job.payload.get("teacher")
        else:
            if alone := bool(observation.examples) and self._planner.consensus_counts(
                observation.namespace
            ):
                # Answers that have examples to copy agree for that alone, and make no new one.
                observation = dataclasses.replace(observation, examples=())
            effort = await self._planner.plan(observation, vector, patient=True)
            if effort is not None and not effort.explore:
                return await self._skip(job, bill, SETTLED_SKIP)
            exploration = await self._loop.explore(observation, background=True, effort=effort)
            self._planner.note(
                job.namespace, effort, exploration.trajectories, exploration.problems
            )
            selection = exploration.selection
            teacher = teacher_text(exploration.trajectories)
            bill.add(exploration.cost)
            if selection.chosen is None:
                raise UpstreamTimeout("no answer came back in the time of an exploration")
            trace = {
                "trajectories": trajectories_to_json(exploration.trajectories, selection),
                "selection": selection_to_json(selection),
                "learning_problems": list(exploration.problems),
            }
        found = Findings(
            # What was asked without the request's examples is no outcome of theirs.
            None if alone else agreement_outcome(selection),
            None if vector is None else precedent_of(observation, selection, teacher, vector),
            self._consensus(observation, selection),
        )
        if reason := self._nothing_to_distil(job, selection):
            trace["learning_cost"] = bill.cost.as_dict()
            return await self._skip(job, bill, reason, trace=trace, findings=found)
        distillation = await self._distilling.distil(
            observation,
            selection,
            judged=self._judges(job.namespace),
            gated=self._gated(job.namespace),
        )
        bill.add(distillation.cost, distillation.elsewhere)
        trace |= distillation.trace()
        trace["learning_cost"] = bill.cost.as_dict()
        if not distillation.rules:
            reason = distillation.problem or WROTE_NOTHING
            return await self._skip(job, bill, reason, trace=trace, findings=found)
        return await self._apply(job, observation, distillation, bill, trace, findings=found)

    async def _teach(self, job: Job, bill: _JobCost) -> str:
        """Learns from a feedback."""
        taught = await self._teacher.teach(job, bill.add)
        trace = {**taught.trace, "learning_cost": bill.cost.as_dict()}
        if taught.distillation is None and taught.completion is None:
            reason = taught.reason or WROTE_NOTHING
            return await self._skip(job, bill, reason, trace=trace)
        observation = observation_from_json(job.payload["observation"])
        return await self._apply(
            job, observation, taught.distillation, bill, trace, completion=taught.completion
        )

    async def _apply(
        self,
        job: Job,
        observation: Observation,
        distillation: Distillation | None,
        bill: _JobCost,
        trace: dict[str, Any],
        *,
        findings: Findings = NO_FINDINGS,
        completion: Completion | None = None,
    ) -> str:
        gated = self._gated(job.namespace)
        rules = () if distillation is None else distillation.rules
        author = None if distillation is None else distillation.model
        try:
            with span("merge", rules=len(rules)) as step:
                drafts = await drafts_of(
                    observation, rules, self._embedder, gated=gated, written_by=author
                )
                applied: LearningResult = await self._store.jobs.apply(
                    job,
                    drafts,
                    trace=trace,
                    spend=bill.spend,
                    findings=findings,
                    completion=completion,
                )
                set_attributes(step, evicted=len(applied.evicted))
        except NamespaceFrozen:
            # Since the job began.
            return await self._skip(job, bill, FROZEN_SKIP, trace=trace)
        return "already_applied" if applied.already else "learned"

    async def _skip(
        self,
        job: Job,
        bill: _JobCost,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        findings: Findings = NO_FINDINGS,
    ) -> str:
        await self._store.jobs.skip(job, reason, trace=trace, spend=bill.spend, findings=findings)
        bill.skipped = reason
        return "skipped"

    async def _told_what_is_right(self, namespace: str) -> bool:
        judged, among = await self._store.evidence.share_judged(namespace, JUDGED_AMONG)
        return among >= JUDGED_LEAST and judged >= JUDGED_SHARE * among

    def _nothing_to_distil(self, job: Job, selection: Selection) -> str | None:
        """Why an exploration teaches no rule; None when it may."""
        if selection.better is None:
            return f"no_contrast:{selection.case.value}"
        if not self._gated(job.namespace):
            return None
        if selection.case in (Case.UNANIMOUS, Case.HOMOGENEOUS):
            # What all agree on is no contrast; such rules seldom pass a gate.
            return f"no_contrast:{selection.case.value}"
        waiting = self._store.evidence.count_candidates(job.namespace)
        return None if worth_distilling(waiting, seed=job.episode_id) else QUEUE_SKIP

    def _consensus(self, observation: Observation, selection: Selection) -> NewExample | None:
        if not self._planner.consensus_counts(observation.namespace):
            return None
        return consensus_example(observation, selection)

    async def _budget_used_up(self, namespace: str) -> bool:
        own = self._store.namespaces.settings_of(namespace)
        calls, tokens = own.calls_per_hour, own.tokens_per_hour
        spent = await self._store.jobs.spend_last_hour(namespace)
        return spent.calls >= (self._options.calls_per_hour if calls is None else calls) or (
            spent.tokens >= (self._options.tokens_per_hour if tokens is None else tokens)
        )


LONGEST_ERROR = 300
QUOTED = 24
"""Characters in a row that an error has of a request where it quotes it."""


def _unquoting(message: str, payload: dict[str, Any]) -> str:
    """An error in few words, and none of them the client's: model servers repeat what they refuse,
    and a reason is kept longer and shown more widely than a question."""
    message = message[:LONGEST_ERROR]
    observation = payload.get("observation") or {}
    said = json_text.dumps([observation.get("question"), observation.get("messages")]).decode()
    pieces = (message[at : at + QUOTED] for at in range(max(1, len(message) - QUOTED + 1)))
    if any(len(piece) == QUOTED and json.dumps(piece)[1:-1] in said for piece in pieces):
        return "told in the request's own words, which are not kept"
    return message
