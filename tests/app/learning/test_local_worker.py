"""Background learning on a real store with a scripted loop; and what is not learned from at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.access.load_limit import LoadLimit
from app.chat.recorder import LearnPolicy, OpenEpisode, Recorder
from app.domain.serialization import contrast_to_json, observation_to_json
from app.domain.trajectory import (
    Case,
    Cost,
    DistilledRule,
    Observation,
    Role,
    Selection,
    Task,
    Trajectory,
)
from app.exceptions import UpstreamRejected, UpstreamUnavailable
from app.learning.distilling import OneContrast
from app.learning.evaluation.gatekeeper import Gatekeeper, GateSettings
from app.learning.evaluation.outcomes import Judge
from app.learning.learner import BUDGET_SKIP, Learner, LearnerOptions
from app.learning.lessons import Teacher
from app.learning.local_worker import Backlog, LocalWorker
from app.loop.effort import Effort
from app.loop.effort_planner import EffortPlanner
from app.loop.loop import Distillation, Exploration
from app.loop.reflect.distiller import Names
from app.loop.reflect.equivalence import Equivalence
from app.upstream.embeddings import EmbeddingFailed
from rules_store.index.namespace_cache import NamespaceCache
from rules_store.models.episodes import Episode, EpisodeStatus
from rules_store.models.jobs import JobState, Spend
from rules_store.models.namespaces import Namespace, NamespaceSettings
from rules_store.models.rules import Polarity, RuleFilter, RuleState
from rules_store.options import StoreOptions
from rules_store.store import RuleStore, utc_now
from tests.compat.helpers import QUESTION, is_teacher
from tests.fakes import HashEmbedder, Reply, ScriptedUpstream, is_student
from tests.gateway import MODEL, Gateway
from tests.rules_store.helpers import Clock

ANSWERED = Trajectory(Role.TEACHER, 0, QUESTION, text="Take away: \\boxed{7}.")
OTHER = Trajectory(Role.STUDENT, 1, QUESTION, text="Add: \\boxed{17}.")
SELECTION = Selection(Case.MAJORITY, Task.CLOSED, ANSWERED, ANSWERED, OTHER)
POSITIVE = DistilledRule(Polarity.POSITIVE, "Count what is taken away.", "questions about rest")
NEGATIVE = DistilledRule(Polarity.NEGATIVE, "Avoid adding what is gone.", "", "length: 4 words")


class ScriptedLoop:
    """Explores and distils as it is told to; `failure` is raised by the next steps."""

    def __init__(self) -> None:
        self.selection = SELECTION
        self.rules: tuple[DistilledRule, ...] = (POSITIVE, NEGATIVE)
        self.explore_failure: Exception | None = None
        self.distil_failure: Exception | None = None
        self.hang = False
        self.steps: list[tuple[str, str, bool]] = []

    async def explore(
        self,
        observation: Observation,
        *,
        background: bool = False,
        effort: Effort | None = None,
    ) -> Exploration:
        await self._step("explore", observation, background, self.explore_failure)
        return Exploration((ANSWERED, OTHER), self.selection, Cost(5, 50, 25), ())

    async def distil(
        self,
        observation: Observation,
        selection: Selection,
        *,
        names: Names | None = None,
        background: bool = True,
        judged: bool = False,
        gated: bool = True,
    ) -> Distillation:
        await self._step("distil", observation, background, self.distil_failure)
        return Distillation(self.rules, Cost(1, 10, 5), "default/reflect/distil_closed@1", "{}")

    async def _step(
        self, name: str, observation: Observation, background: bool, failure: Exception | None
    ) -> None:
        self.steps.append((name, observation.episode_id, background))
        if self.hang:
            await asyncio.Event().wait()
        if failure is not None:
            raise failure


class Bench:
    """A worker, what it works with, and short words for both."""

    def __init__(self, store: RuleStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.loop = ScriptedLoop()
        self.embedder = HashEmbedder()
        self.equivalence = Equivalence()
        self.gated = False
        self.worker = self.new_worker()

    def outcomes(self) -> dict[str, int]:
        """How jobs ended, by outcome."""
        [family] = self.worker.learner.metrics.learning_outcomes.collect()
        counts = (each for each in family.samples if each.name.endswith("_total"))
        return {each.labels["outcome"]: int(each.value) for each in counts}

    def new_worker(self, concurrency: int = 1, heartbeat: float = 60.0, **more: Any) -> LocalWorker:
        options = {
            "calls_per_hour": 100,
            "tokens_per_hour": 10_000,
            **more,
        }
        judge = Judge(self.equivalence, self.embedder)
        distilling = OneContrast(self.loop)  # type: ignore[arg-type]
        learner = Learner(
            self.store,
            self.loop,  # type: ignore[arg-type]
            self.embedder,
            EffortPlanner(self.store, self.embedder, enabled=self.gated, confidence=0.9),
            Gatekeeper(
                self.store,
                self.loop,  # type: ignore[arg-type]
                judge,
                GateSettings(floor=-1.0, probation=50),
            ),
            Teacher(
                self.store,
                self.loop,  # type: ignore[arg-type]
                judge,
                distilling,
                lambda namespace: self.gated,
                lambda namespace: False,
                calls_per_answer=0.2,
                exploring=6,
            ),
            distilling,
            lambda namespace: self.gated,
            lambda namespace: False,
            LearnerOptions(**options),  # type: ignore[arg-type]
        )
        return LocalWorker(self.store, learner, concurrency, heartbeat)

    async def job(self, episode: str = "ep_1", *, contrast: bool = False, **more: Any) -> None:
        observation = Observation(
            episode_id=episode,
            namespace=more.pop("namespace", "default"),
            model="m",
            messages=({"role": "user", "content": QUESTION},),
            question=QUESTION,
        )
        payload = {"observation": observation_to_json(observation)}
        if contrast:
            payload["contrast"] = contrast_to_json(SELECTION)
        await self.store.namespaces.ensure(observation.namespace)
        await self.store.episodes.begin(
            episode, namespace=observation.namespace, mode="steer", question=QUESTION, model="m"
        )
        await self.store.episodes.finish(
            episode, answer="7", trace={"cost": {"calls": 1}}, job_payload=payload
        )

    async def run_one(self, worker: LocalWorker | None = None) -> bool:
        """Whether a job was due."""
        job = await self.store.jobs.claim("tests")
        if job is not None:
            await (worker or self.worker).learner.run(job)
        return job is not None

    async def episode(self, name: str = "ep_1") -> Episode:
        return await self.store.episodes.get(name)

    async def rules(self, **where: Any) -> list[Any]:
        return (await self.store.rules.list(RuleFilter(**where))).items

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(500):
            if await condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within 5 s: {self.loop.steps}, {self.outcomes()}")

    async def until_status(self, status: EpisodeStatus, name: str = "ep_1") -> None:
        async def reached() -> bool:
            return (await self.episode(name)).status is status

        await self.until(reached)

    async def until_steps(self, count: int) -> None:
        async def reached() -> bool:
            return len(self.loop.steps) >= count

        await self.until(reached)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = Clock()
    store = await RuleStore.open(
        f"sqlite:///{tmp_path / 'store.db'}",
        embedding_model="hash-384",
        data_dir=tmp_path,
        options=StoreOptions(max_attempts=2, retry_delay=2.0),
        clock=clock,
    )
    yield Bench(store, clock)
    await store.close()


# -- learning -----------------------------------------------------------------------------------


async def test_a_steered_request_is_explored_and_distilled_in_the_background(bench: Bench) -> None:
    await bench.job()
    assert await bench.run_one()
    assert bench.loop.steps == [("explore", "ep_1", True), ("distil", "ep_1", True)]
    episode = await bench.episode()
    assert (episode.status, episode.reason) == (EpisodeStatus.LEARNED, None)
    trace = episode.trace
    assert [t["name"] for t in trace["trajectories"]] == ["teacher", "student-1"]
    assert trace["selection"]["case"] == "majority"
    assert trace["distiller"]["prompt"] == "default/reflect/distil_closed@1"
    assert trace["learning_cost"]["calls"] == 6
    assert trace["cost"] == {"calls": 1}  # the request's own cost stays what it was
    assert {r["outcome"] for r in trace["rules_learned"]} == {"created", "quarantined"}
    assert await bench.store.jobs.spend_last_hour("default") == Spend(6, 90)
    assert bench.outcomes() == {"learned": 1}
    assert not await bench.run_one()


async def test_an_explored_request_is_only_distilled(bench: Bench) -> None:
    await bench.job(contrast=True)
    await bench.run_one()
    assert [name for name, _, _ in bench.loop.steps] == ["distil"]
    assert (await bench.episode()).status is EpisodeStatus.LEARNED


async def test_a_learned_rule_is_found_at_once(bench: Bench) -> None:
    """By its own words, and by its trigger and the question that it came from."""
    await bench.job()
    await bench.run_one()
    question = (await bench.episode()).question
    for text in (POSITIVE.text, f"{POSITIVE.trigger}\n{question}"):
        (row,) = await bench.embedder.embed([text])
        await found_exactly(bench, row)


async def found_exactly(bench: Bench, row: Any) -> None:
    (found,) = bench.store.search("default", row, Polarity.POSITIVE, 5).hits
    assert found.text == POSITIVE.text
    assert found.similarity == pytest.approx(1.0, abs=1e-5)


async def test_a_refused_rule_is_in_quarantine_with_its_reason(bench: Bench) -> None:
    await bench.job()
    await bench.run_one()
    (rule,) = await bench.rules(state=RuleState.QUARANTINED)
    assert (rule.text, rule.reason) == (NEGATIVE.text, NEGATIVE.refusal)
    assert (rule.source_episode, rule.domain, rule.namespace) == ("ep_1", "default", "default")
    (row,) = await bench.embedder.embed([NEGATIVE.text])
    assert bench.store.search("default", row, Polarity.NEGATIVE, 5).hits == ()


@pytest.mark.parametrize("case", [Case.SCATTERED, Case.UNUSABLE])
async def test_where_nothing_was_better_nothing_is_learned(bench: Bench, case: Case) -> None:
    bench.loop.selection = Selection(case, Task.CLOSED, ANSWERED)
    await bench.job()
    await bench.run_one()
    episode = await bench.episode()
    assert (episode.status, episode.reason) == (EpisodeStatus.SKIPPED, f"no_contrast:{case.value}")
    assert episode.trace["trajectories"]
    assert await bench.store.jobs.spend_last_hour("default") == Spend(5, 75)
    assert await bench.rules() == []


async def test_a_distiller_that_writes_nothing_is_named(bench: Bench) -> None:
    bench.loop.rules = ()
    await bench.job()
    await bench.run_one()
    episode = await bench.episode()
    assert (episode.status, episode.reason) == (EpisodeStatus.SKIPPED, "distiller_wrote_nothing")
    assert await bench.store.jobs.spend_last_hour("default") == Spend(6, 90)


# -- budgets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spend", [Spend(100, 0), Spend(0, 10_000)])
async def test_a_spent_budget_skips_and_says_so(bench: Bench, spend: Spend) -> None:
    await bench.job()
    await bench.job("ep_2", namespace="other")
    await bench.store.jobs.record_spend("default", spend)
    await bench.run_one()
    episode = await bench.episode()
    assert (episode.status, episode.reason) == (EpisodeStatus.SKIPPED, BUDGET_SKIP)
    assert bench.loop.steps == []
    # Another namespace has a budget of its own.
    await bench.run_one()
    assert (await bench.episode("ep_2")).status is EpisodeStatus.LEARNED


async def test_a_budget_is_for_an_hour(bench: Bench) -> None:
    await bench.store.namespaces.ensure("default")
    await bench.store.jobs.record_spend("default", Spend(100, 10_000))
    bench.clock.forward(3700)
    await bench.job()
    await bench.run_one()
    assert (await bench.episode()).status is EpisodeStatus.LEARNED


async def test_a_budget_of_nothing_learns_nothing(bench: Bench) -> None:
    await bench.job()
    await bench.run_one(bench.new_worker(calls_per_hour=0))
    assert (await bench.episode()).reason == BUDGET_SKIP


# -- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamUnavailable("the model server can't be reached"),
        UpstreamRejected("slow down", status=429),
    ],
)
async def test_a_server_that_is_away_is_tried_again_and_then_named(
    bench: Bench, failure: Exception
) -> None:
    bench.loop.explore_failure = failure
    await bench.job()
    assert await bench.run_one()
    assert (await bench.episode()).status in (EpisodeStatus.PENDING, EpisodeStatus.LEARNING)
    assert not await bench.run_one(), "not before the pause is over"
    bench.clock.forward(2.1)
    assert await bench.run_one()
    episode = await bench.episode()
    assert episode.status is EpisodeStatus.FAILED
    assert "2 attempts" in str(episode.reason)
    assert str(failure) in str(episode.reason)
    assert bench.outcomes() == {"retried": 1, "failed": 1}
    bench.clock.forward(3600)
    assert not await bench.run_one()


async def test_a_second_try_may_succeed(bench: Bench) -> None:
    bench.loop.explore_failure = UpstreamUnavailable("away")
    await bench.job()
    await bench.run_one()
    bench.loop.explore_failure = None
    bench.clock.forward(2.1)
    await bench.run_one()
    episode = await bench.episode()
    assert (episode.status, episode.reason) == (EpisodeStatus.LEARNED, None)


async def test_what_the_server_refused_is_not_tried_again(bench: Bench) -> None:
    bench.loop.distil_failure = UpstreamRejected("the prompt is too long", status=400)
    await bench.job()
    await bench.run_one()
    episode = await bench.episode()
    assert episode.status is EpisodeStatus.FAILED
    assert "the prompt is too long" in str(episode.reason)
    # What the failed attempt had cost by then is billed.
    assert await bench.store.jobs.spend_last_hour("default") == Spend(5, 75)


async def test_while_the_embedder_is_down_the_job_waits(bench: Bench) -> None:
    bench.embedder.failure = EmbeddingFailed("the embedding model can't be loaded")
    await bench.job()
    await bench.run_one()
    assert bench.outcomes() == {"retried": 1}
    assert await bench.rules() == []
    bench.embedder.failure = None
    bench.clock.forward(2.1)
    await bench.run_one()
    assert (await bench.episode()).status is EpisodeStatus.LEARNED
    assert len(await bench.rules()) == 2


async def test_a_fault_of_our_own_fails_the_job_with_its_name(bench: Bench) -> None:
    bench.loop.distil_failure = KeyError("better")
    await bench.job()
    await bench.run_one()
    episode = await bench.episode()
    assert episode.status is EpisodeStatus.FAILED
    assert episode.reason == "internal: KeyError: 'better'"


# -- the worker's life --------------------------------------------------------------------------


async def test_a_woken_worker_takes_the_job(bench: Bench) -> None:
    bench.worker.start()
    await bench.job()
    bench.worker.wake()
    await bench.until_status(EpisodeStatus.LEARNED)
    await bench.worker.stop()


async def test_a_stopped_worker_gives_its_job_back_uncounted(bench: Bench) -> None:
    bench.loop.hang = True
    await bench.job()
    bench.worker.start()
    await bench.until_steps(1)
    assert (await bench.store.jobs.counts())[JobState.RUNNING] == 1
    await bench.worker.stop()
    assert (await bench.store.jobs.counts())[JobState.PENDING] == 1
    bench.loop.hang = False
    job = await bench.store.jobs.claim("the next process")
    assert job is not None
    assert job.attempts == 1
    await bench.new_worker().learner.run(job)
    assert (await bench.episode()).status is EpisodeStatus.LEARNED


async def test_a_worker_stops_though_its_job_has_passed_to_another(bench: Bench) -> None:
    bench.loop.hang = True
    await bench.job()
    bench.worker.start()
    await bench.until_steps(1)
    bench.clock.forward(60)
    assert await bench.store.jobs.claim("another worker") is not None
    async with asyncio.timeout(5):
        await bench.worker.stop()


async def test_a_worker_outlives_a_job_that_fails(bench: Bench) -> None:
    bench.loop.distil_failure = RuntimeError("odd")
    bench.worker.start()
    await bench.job()
    bench.worker.wake()
    await bench.until_steps(1)
    await bench.until_status(EpisodeStatus.FAILED)
    bench.loop.distil_failure = None
    await bench.job("ep_2")
    bench.worker.wake()
    await bench.until_status(EpisodeStatus.LEARNED, "ep_2")
    await bench.worker.stop()


async def test_a_long_job_keeps_its_lease(bench: Bench) -> None:
    bench.loop.hang = True
    await bench.job()
    worker = bench.new_worker(heartbeat=0.02)
    worker.start()
    await bench.until_steps(1)
    # Ten leases long; each is renewed in time.
    for _ in range(10):
        bench.clock.forward(10)
        await asyncio.sleep(0.06)
    assert await bench.store.jobs.claim("another worker") is None
    await worker.stop()


async def test_as_many_jobs_at_a_time_as_configured(bench: Bench) -> None:
    bench.loop.hang = True
    for n in range(3):
        await bench.job(f"ep_{n}")
    worker = bench.new_worker(concurrency=2)
    worker.start()
    await bench.until_steps(2)
    await asyncio.sleep(0.1)
    assert len({episode for _, episode, _ in bench.loop.steps}) == 2
    await worker.stop()


# -- what is not learned from -------------------------------------------------------------------


class Waiting:
    """A worker with so many jobs waiting."""

    def __init__(self, backlog: int) -> None:
        self.backlog = Backlog()
        self.backlog.seen({("key", "ns"): backlog} if backlog else {})


def recorder(backlog: int = 0, own: dict[str, Any] | None = None, **more: Any) -> Recorder:
    """Over a namespace `ns` with settings of its `own`, or a frozen one."""
    policy = LearnPolicy(**{"enabled": True, "sample_rate": 1.0, "backlog": 10, **more})
    own = dict(own or {})
    known = NamespaceCache(StoreOptions())
    frozen = own.pop("frozen", False)
    known.put(Namespace("ns", utc_now(), frozen, NamespaceSettings(**own)))
    store: Any = SimpleNamespace(namespaces=known)
    return Recorder(store, Waiting(backlog), LoadLimit(100), policy)  # type: ignore[arg-type]


def why_not(recorder: Recorder, opened: OpenEpisode | None = None, **more: Any) -> str | None:
    given = {"namespace": "ns", "wanted": None, "obstacle": None, "sampled": True, **more}
    given.setdefault("allowed", True)
    given.setdefault("key_id", "key")
    return recorder.why_not(opened or OpenEpisode("ep_1", True), **given)


def test_the_reasons_in_their_order() -> None:
    duplicate = OpenEpisode("ep_1", True, duplicate=True)
    assert why_not(recorder()) is None
    assert why_not(recorder(enabled=False)) == "learning_off"
    assert why_not(recorder(), wanted=False) == "learning_off"
    assert why_not(recorder(enabled=False), wanted=True) == "learning_off"
    assert why_not(recorder(), duplicate) == "duplicate_request"
    assert why_not(recorder(), duplicate, wanted=False) == "learning_off"
    assert why_not(recorder(), obstacle="has_tools") == "has_tools"
    assert why_not(recorder(backlog=9)) is None
    assert why_not(recorder(backlog=10)) == "backlog_full"


def test_a_full_backlog_has_room_for_whoever_has_not_filled_it() -> None:
    backlog = Backlog()
    flood, quiet = ("flood", "ns"), ("quiet", "ns")
    backlog.seen({flood: 10})
    assert backlog.full(flood, 10)
    assert not backlog.full(quiet, 10)
    for _ in range(5):
        backlog.add(quiet)
    assert backlog.full(quiet, 10)
    assert not backlog.full(quiet, 16)
    assert why_not(recorder(), obstacle="has_tools") == "has_tools"


def test_namespaces_share_what_is_their_keys() -> None:
    """Who thinks of a name for each request has no more of the queue for it."""
    backlog = Backlog()
    backlog.seen({("flood", f"ns-{number}"): 1 for number in range(10)})
    assert backlog.full(("flood", "ns-0"), 10)
    assert not backlog.full(("flood", "ns-10"), 10), "one that has nothing there"
    for _ in range(4):
        backlog.add(("quiet", "ns"))
        assert not backlog.full(("quiet", "ns"), 10)
    for number in range(10, 20):
        backlog.add(("flood", f"ns-{number}"))
    assert backlog.full(("flood", "ns-20"), 10)


def test_the_sampling_rate_is_a_share_and_repeats() -> None:
    episodes = [OpenEpisode(f"ep_{n}", True) for n in range(400)]
    kept = [why_not(recorder(sample_rate=0.25), opened) is None for opened in episodes]
    assert kept == [why_not(recorder(sample_rate=0.25), opened) is None for opened in episodes]
    assert 60 < sum(kept) < 140
    for rate, share in ((0.0, 0), (1.0, 400)):
        assert sum(why_not(recorder(sample_rate=rate), o) is None for o in episodes) == share
    assert why_not(recorder(sample_rate=0.0)) == "not_sampled"


def test_a_namespace_goes_before_the_service() -> None:
    assert why_not(recorder(own={"learn": False})) == "learning_off"
    assert why_not(recorder(enabled=False, own={"learn": True})) is None
    assert why_not(recorder(own={"learn": True}), wanted=False) == "learning_off"
    assert why_not(recorder(own={"sample_rate": 0.0})) == "not_sampled"
    assert why_not(recorder(sample_rate=0.0, own={"sample_rate": 1.0})) is None
    assert why_not(recorder(own={"frozen": True})) == "namespace_frozen"
    assert why_not(recorder(own={"learn": False}), namespace="another") is None


def test_an_exploration_that_was_paid_for_is_kept() -> None:
    assert why_not(recorder(sample_rate=0.0), sampled=False) is None


# -- learning and answers -----------------------------------------------------------------------


async def test_learning_waits_for_the_answers_of_clients(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    def body(question: str, learn: bool) -> dict[str, Any]:
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": question}],
            "ttcl": {"namespace": namespace, "learn": learn},
        }

    up.when(lambda sent: "slow" in str(sent["messages"]), Reply(delay=0.8))
    up.when(lambda sent: is_teacher(sent) or is_student(sent), Reply("\\boxed{7}"))
    async with httpx.AsyncClient(timeout=30, headers=gw.headers) as http:
        url = f"{gw.base_url}/chat/completions"
        answer = asyncio.create_task(http.post(url, json=body("A slow one?", False)))
        await up.until(lambda: up.chats)
        quick = await http.post(url, json=body(QUESTION, True))
        assert not answer.done(), "the quick answer did not wait for the slow one"
        await answer
    episode = await asyncio.to_thread(gw.settled, quick.headers["x-ttcl-episode"])
    assert episode["status"] == "learned"
    await up.settled()
    first, second, *learning = up.chats
    assert learning
    assert first.finished is not None
    assert second.finished is not None
    assert second.finished < first.finished
    assert min(call.started for call in learning) >= first.finished
    assert {call.body.get("priority") for call in learning} == {10}
    assert {call.headers["x-request-id"] for call in learning} == {episode["id"]}
