"""The product over a stream: what it does with a request, with feedback, and afterwards.

    rules        rules alone: examples off
    examples     examples alone: no rule is given
    experience   both, as evidence decides: the product's default
    experience@K, examples@K   with at most K examples instead of the default
    experience-consensus       answers on which an exploration agreed become examples; all explored
    examples-no-floor          however far the nearest are
    examples-block   examples inside the block instead of as earlier turns
    rules-at-once, experience-at-once   every mistake is learned from, whatever it costs, and what
                                        is written steers at once: as much as rules can do
    rules-named, rules-cluster, rules-revised   as rules-at-once, by the other variants of the
                                                distiller
    rules-within@N, examples-within@N, experience-within@N   at most N tokens of experience a prompt

A request is steered, recorded and learned from by the gateway's own objects; only the call to the
model goes through the run's cache. Feedback is taken as `POST /v1/feedback` takes it. When a step
is over its answers are recorded and judged in the order of the stream, and then the learning jobs
that they led to run, one after the other, within the product's budgets.

Whatever could come out differently when a pass is replayed is bound: the clock goes on by
questions, lots are drawn by episode ids, which name the question, and a step is steered one
question at a time, so that each is embedded by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.access.callers import ANYONE
from app.access.load_limit import LoadLimit
from app.chat.call import ChatCall, SteeredRequest
from app.chat.finishing import Finisher
from app.chat.formats import Reading
from app.chat.recorder import LearnPolicy, Recorder
from app.chat.request import ChatRequest, TTCLOptions
from app.chat.steering import Steering
from app.domain.trajectory import Message, Mode, Role, Trajectory
from app.exceptions import TTCLError
from app.learning.evaluation.outcomes import Judge
from app.learning.learner import Learner
from app.learning.local_worker import LocalWorker
from app.loop.explore.roles import teacher_params
from app.loop.steer.budget import TokenCounter
from app.observability.metrics import Metrics
from app.settings import DistillerVariant, ExamplePlace, Policy, Settings
from app.upstream.capabilities import ModelInfo
from app.upstream.types import ChatBackend, Completion
from app.wiring.factories import (
    build_distiller_model,
    build_feedback_intake,
    build_learner,
    build_loop,
    build_planner,
    build_retriever,
    build_writer,
)
from benchmarks.arms.base import NAMESPACE, ArmAnswer, PassQuestion, Repeat, Setting, observe
from benchmarks.arms.changes import (
    BY_EVIDENCE,
    WRITTEN,
    StoreChanges,
    example_row,
    origin_of,
    rule_row,
)
from benchmarks.arms.direct import framed, sample
from benchmarks.arms.lookup import NO_TOKENIZER
from benchmarks.arms.stores import PassClock, PassStore, opened_store
from benchmarks.feedback import Feedback
from rules_store.models.examples import ExampleUse
from rules_store.models.feedback import NewFeedback
from rules_store.models.jobs import Job

_PATIENT = 3600.0
"""Seconds: a run waits for its embeddings; only a client must not."""


@dataclass(frozen=True, slots=True)
class Experienced:
    """`overrides`: settings of this arm."""

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    stateful: bool = True

    async def start(self, setting: Setting, repeat: Repeat) -> ExperiencedPass:
        given = {"policy": Policy.GATED, "embedding_timeout": _PATIENT, **self.overrides}
        settings = setting.settings.changed(**given)
        clock = PassClock()
        files = await opened_store(setting, self.name, repeat, clock)
        return ExperiencedPass(self.name, setting, settings, repeat, files, clock)


_NO_EXAMPLES = {"examples": ExampleUse.OFF}
_NO_RULES = {"max_positive": 0, "max_negative": 0}
_AT_ONCE = {
    "policy": Policy.PAPER,
    "feedback_calls_per_answer": 100,
    "distiller_variant": DistillerVariant.CONTRAST,
}
EXPERIENCED_ARMS = {
    arm.name: arm
    for arm in (
        Experienced("rules", _NO_EXAMPLES),
        Experienced("rules-at-once", {**_NO_EXAMPLES, **_AT_ONCE}),
        *(
            Experienced(
                f"rules-{variant}",
                {**_NO_EXAMPLES, **_AT_ONCE, "distiller_variant": variant},
            )
            for variant in DistillerVariant
            if variant is not DistillerVariant.CONTRAST
        ),
        Experienced("examples", _NO_RULES),
        Experienced("experience"),
        Experienced("experience-at-once", _AT_ONCE),
        Experienced(
            "experience-consensus",
            {"examples": ExampleUse.CONSENSUS, "learn_sample_rate": 1.0},
        ),
        Experienced("examples-no-floor", {**_NO_RULES, "example_floor": -1.0}),
        Experienced("examples-block", {**_NO_RULES, "example_place": ExamplePlace.BLOCK}),
    )
}


def experience_of(most: int) -> Experienced:
    """The product with at most so many examples."""
    return Experienced(f"experience@{most}", {"max_examples": most})


def within(name: str, kinds: Mapping[str, Any]) -> Callable[[int], Experienced]:
    """An arm with at most so many tokens of experience in a prompt."""
    return lambda most: Experienced(
        f"{name}-within@{most}", {**kinds, "experience_token_budget": most}
    )


WITHIN = {
    f"{name}-within": within(name, kinds)
    for name, kinds in (("rules", _NO_EXAMPLES), ("examples", _NO_RULES), ("experience", {}))
}


def examples_of(most: int) -> Experienced:
    return Experienced(f"examples@{most}", {**_NO_RULES, "max_examples": most})


@dataclass(frozen=True, slots=True)
class _Answered:
    """A question's way through the gateway, until its step is over."""

    call: ChatCall
    steered: SteeredRequest
    made: Trajectory


class ExperiencedPass:
    def __init__(
        self,
        arm: str,
        setting: Setting,
        settings: Settings,
        repeat: Repeat,
        files: PassStore,
        clock: PassClock,
    ) -> None:
        """`settings`: those of the arm."""
        self._arm, self._repeat = arm, repeat
        self._setting, self._settings = setting, settings
        self._files, self._store, self._clock = files, files.store, clock
        self._changes = StoreChanges(self._store)
        self._turn = asyncio.Lock()
        self._backend, self._distiller_backend = _Backend(), _Backend()
        self._questions: dict[str, str] = {}
        """Episode id -> question id."""
        self._sources: dict[str, str] = {}
        """Example id -> id of the question that it came of."""
        retriever = build_retriever(settings, self._store, setting.embedder)
        judge = Judge(setting.equivalence, setting.embedder)
        self._learner = self._build_learner(judge, retriever.gated)
        self._worker = LocalWorker(self._store, self._learner, 1, settings.job_lease / 3)
        metrics = Metrics()
        policy = LearnPolicy(settings.learn, settings.learn_sample_rate, settings.learn_backlog)
        recorder = Recorder(
            self._store, self._worker, LoadLimit(settings.max_open_requests), policy
        )
        self._steering = Steering(
            self._store.effect,
            retriever,
            recorder,
            TokenCounter(NO_TOKENIZER),
            build_writer(settings, setting.prompts, self._store),
            metrics,
            settings.experience_token_budget,
        )
        self._finisher = Finisher(recorder, self._steering, metrics)
        self._intake = build_feedback_intake(
            settings, self._store, judge, setting.embedder, self._worker.wake
        )

    def _build_learner(self, judge: Judge, gated: Any) -> Learner:
        setting, settings = self._setting, self._settings
        loop = build_loop(
            settings,
            self._backend,
            setting.embedder,
            setting.equivalence,
            setting.prompts,
            distiller_model=build_distiller_model(settings, self._distiller_backend),
        )
        return build_learner(
            settings,
            self._store,
            loop,
            setting.embedder,
            build_planner(settings, self._store, setting.embedder),
            gated,
            judge,
            rng=random.Random(f"{self._arm}/{self._repeat.seed}/{self._repeat.order}/replays"),
        )

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        observation = observe(self._setting, self._repeat, asked, arm=self._arm)
        backend = self._setting.calls.scoped(observation.episode_id)
        self._questions[observation.episode_id] = asked.id
        messages = framed(self._setting, observation)
        params = teacher_params(observation, None)
        call = self._call(observation.episode_id, messages, params)
        # One at a time, in the order of the step: see above.
        async with self._turn:
            steered = await self._steering.steer(call)
            await self._steering.settle(call, steered)
            sent = self._steering.messages(call, steered)
        if steered.degraded:
            raise TTCLError(f"{asked.id} could not be steered: {', '.join(steered.degraded)}")
        made = await sample(backend, observation, sent, Role.TEACHER, 0, params)
        return ArmAnswer(
            asked,
            made.text,
            backend,
            failure=made.failure,
            trajectories=(made,),
            details=self._details(steered),
            lesson=_Answered(call, steered, made),
        )

    def _call(self, episode: str, messages: list[Message], params: dict[str, Any]) -> ChatCall:
        """A client's request, as zero-shot asks it."""
        setting, settings = self._setting, self._settings
        body = {**params, "model": setting.model, "messages": messages}
        return ChatCall(
            caller=ANYONE,
            request=ChatRequest.model_validate(body, strict=False),
            options=TTCLOptions(task=setting.task.kind, domain=setting.task.domain),
            unread=(),
            body=body,
            reading=Reading(body),
            raw=episode.encode(),
            verbatim=True,
            asked_model=setting.model,
            model=ModelInfo(setting.model, "", 0, None),
            mode=Mode.STEER,
            namespace=NAMESPACE,
            domain=setting.task.domain,
            limits=settings.limits(self._store.namespaces.settings_of(NAMESPACE)),
            episode=episode,
            request_id=episode,
            client_request_id=None,
            is_retry=False,
        )

    def _details(self, steered: SteeredRequest) -> dict[str, Any]:
        found = steered.experience
        return {
            "given": found.given.value,
            "offered": [each.value for each in found.offered],
            "rules_injected": [
                {
                    "polarity": hit.polarity.value,
                    "text": hit.text,
                    "similarity": round(hit.similarity, 4),
                }
                for hit in found.rules
            ],
            "examples": [
                {"id": self._sources.get(hit.id), "similarity": round(hit.similarity, 4)}
                for hit in found.examples
            ],
        }

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for outcome in outcomes:
            self._clock.tick()
            await self._record(outcome.lesson)
            if outcome.feedback is not None and outcome.failure is None:
                await self._tell(outcome.lesson, outcome.feedback)
            rows += await self._changed(outcome.asked)
        by_episode = {outcome.lesson.call.episode: outcome for outcome in outcomes}
        while (job := await self._store.jobs.claim(self._learner.owner)) is not None:
            # One that had to be tried again belongs to an earlier step: the last answer pays.
            outcome = by_episode.get(job.episode_id, outcomes[-1])
            self._backend.now = outcome.backend
            self._distiller_backend.now = self._setting.distiller_backend(outcome.backend)
            became = await self._learner.run(job)
            rows.append({"id": outcome.asked.id, "kind": "jobs", "of": job.kind, "became": became})
            rows += await self._changed(outcome.asked, job)
            while await self._learner.try_rules():
                pass
            rows += await self._changed(outcome.asked)
        self._worker.backlog.seen({})
        await self._store.catch_up()
        return rows

    async def _record(self, answered: _Answered) -> None:
        call, steered, made = answered.call, answered.steered, answered.made
        if made.failure is not None:
            await self._finisher.failed(call, steered, made.failure)
            return
        complete = made.finish_reason is not None
        await self._finisher.answered(call, steered, made.text, made.cost, complete=complete)

    async def _tell(self, answered: _Answered, told: Feedback) -> None:
        """As `POST /v1/feedback`."""
        assert answered.call.episode is not None
        episode = await self._store.episodes.get(answered.call.episode)
        said = NewFeedback(**told.as_body())
        await self._intake.take(episode, said, learn=True, key_id="benchmark")

    async def _changed(self, asked: PassQuestion, job: Job | None = None) -> list[dict[str, Any]]:
        """Rows of what has become of rules and examples since the last look; `job`: what has
        written the rules among them."""
        rows: list[dict[str, Any]] = []
        for event in await self._changes.new():
            row = rule_row(event, WRITTEN | BY_EVIDENCE) or example_row(event)
            if row is None:
                continue
            if event.example_id is not None:
                question = self._questions.get(row.pop("episode"), asked.id)
                self._sources.setdefault(event.example_id, question)
                row["question"] = self._sources[event.example_id]
            if job is not None and event.kind == "rule.created":
                row |= origin_of(await self._store.episodes.get(job.episode_id), job)
            rows.append({"id": asked.id, **row})
        return rows

    async def close(self) -> None:
        await self._finisher.drain()
        await self._files.close()


class _Backend:
    """The model of the learning jobs: each call is counted for the question whose job it is of."""

    def __init__(self) -> None:
        self.now: ChatBackend | None = None

    @property
    def _current(self) -> ChatBackend:
        assert self.now is not None, "a job runs after its answer"
        return self.now

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        return await self._current.complete(
            model, messages, params, background=background, logprobs=logprobs
        )

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        return await self._current.structured(
            model, messages, schema, params, background=background
        )
