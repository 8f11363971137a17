"""One object each, from settings, for gateway, worker process, command line and benchmarks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from app.exceptions import ConfigurationError
from app.learning.distilling import Cluster, Distilling, OneContrast, Revised
from app.learning.evaluation.gatekeeper import Gatekeeper, GateSettings
from app.learning.evaluation.outcomes import Judge
from app.learning.feedback import FeedbackIntake, FeedbackOptions
from app.learning.learner import Learner, LearnerOptions
from app.learning.lessons import Teacher
from app.learning.local_worker import LocalWorker, Worker
from app.loop.effort_planner import EffortPlanner
from app.loop.explore.exploration import ExplorerOptions
from app.loop.loop import Loop, LoopOptions
from app.loop.reflect.equivalence import Equivalence
from app.loop.steer.retriever import Retriever, RetrieverOptions
from app.loop.steer.writer import ExperienceWriter
from app.observability.metrics import Metrics
from app.observability.tracing import NO_TRACES, Tracer
from app.prompt_library import PromptLibrary
from app.settings import DistillerVariant, Settings
from app.upstream.call_limiter import CallLimiter
from app.upstream.client import Upstream
from app.upstream.distiller_model import DistillerModel
from app.upstream.embeddings import (
    CachedEmbedder,
    Embedder,
    local_embedder,
    remote_embedder,
)
from app.upstream.types import ChatBackend
from rules_store.database.engine import parse_url
from rules_store.database.postgresql import libpq_address
from rules_store.database.private import make_folder
from rules_store.errors import (
    DatabaseMissing,
    OlderProcesses,
    SchemaOutdated,
    StoreUnavailable,
)
from rules_store.options import StoreOptions
from rules_store.policy.gate import GateOptions
from rules_store.policy.turns import Tenant
from rules_store.store import RuleStore

WATCH_INTERVAL = 0.5
"""Seconds between looks for what other processes wrote to the store."""


def load_prompts(settings: Settings) -> PromptLibrary:
    if settings.prompts_dir is None:
        return PromptLibrary.bundled()
    return PromptLibrary.load(settings.prompts_dir)


def build_embedder(settings: Settings) -> CachedEmbedder:
    secret = settings.embedding_api_key
    if settings.embedding_base_url is not None:
        key = secret.get_secret_value() if secret else None
        return remote_embedder(settings.embedding_base_url, settings.embedding_model, key)
    return local_embedder(settings.embedding_model)


def build_retriever(
    settings: Settings, store: RuleStore, embedder: Embedder, *, timeout: float | None = None
) -> Retriever:
    options = RetrieverOptions(
        floor=settings.similarity_floor,
        example_floor=settings.example_floor,
        timeout=settings.embedding_timeout if timeout is None else timeout,
        examples=settings.examples,
        policy=settings.resolved_policy,
        experiment=settings.experiment,
    )
    return Retriever(store, embedder, options)


def build_writer(settings: Settings, prompts: PromptLibrary, store: RuleStore) -> ExperienceWriter:
    return ExperienceWriter(prompts, settings.experiment.example_place, confidential(store))


def confidential(store: RuleStore) -> Callable[[str], bool]:
    """Whether the model is asked to keep what a namespace gives it to itself."""
    return lambda namespace: bool(store.namespaces.settings_of(namespace).confidential)


def build_planner(settings: Settings, store: RuleStore, embedder: Embedder) -> EffortPlanner:
    confidence = settings.experiment.explore_confidence
    return EffortPlanner(
        store,
        embedder,
        enabled=settings.adapts,
        confidence=confidence,
        examples=settings.examples,
    )


def build_gatekeeper(settings: Settings, store: RuleStore, loop: Loop, judge: Judge) -> Gatekeeper:
    floor = settings.similarity_floor
    return Gatekeeper(store, loop, judge, GateSettings(floor, settings.experiment.probation))


def build_distilling(
    settings: Settings, store: RuleStore, loop: Loop, embedder: Embedder, judge: Judge
) -> Distilling:
    match settings.experiment.distiller_variant:
        case DistillerVariant.CONTRAST:
            return OneContrast(loop)
        case DistillerVariant.NAMED:
            return OneContrast(loop, named=True)
        case DistillerVariant.CLUSTER:
            return Cluster(store, loop, embedder)
        case DistillerVariant.REVISED:
            return Revised(store, loop, embedder, judge)


def build_teacher(
    settings: Settings,
    store: RuleStore,
    loop: Loop,
    judge: Judge,
    distilling: Distilling,
    gated: Callable[[str], bool],
) -> Teacher:
    exploring = settings.students + 2  # Teacher and Tutor
    return Teacher(
        store,
        loop,
        judge,
        distilling,
        gated,
        judges(settings, gated),
        calls_per_answer=settings.feedback_calls_per_answer,
        exploring=exploring,
    )


def judges(settings: Settings, gated: Callable[[str], bool]) -> Callable[[str], bool]:
    """Whether the model is asked about each new rule of a namespace."""
    always = settings.judge_rules
    return gated if always is None else lambda namespace: always


def build_upstream(
    settings: Settings,
    base_url: str,
    *,
    availability: Callable[[], str | None] = lambda: None,
) -> Upstream:
    secret = settings.upstream_api_key
    return Upstream(
        base_url,
        api_key=secret.get_secret_value() if secret else None,
        model=settings.upstream_model,
        timeout=settings.upstream_timeout,
        connect_timeout=settings.upstream_connect_timeout,
        gate=CallLimiter(settings.learn_call_concurrency),
        availability=availability,
    )


def build_distiller_server(settings: Settings) -> Upstream | None:
    """The server of the model that writes rules, where it is one of its own."""
    if settings.distiller_base_url is None:
        return None
    secret = settings.distiller_api_key
    return Upstream(
        settings.distiller_base_url,
        api_key=secret.get_secret_value() if secret else None,
        model=settings.distiller_model,
        timeout=settings.distiller_timeout,
        connect_timeout=settings.upstream_connect_timeout,
        gate=CallLimiter(settings.learn_call_concurrency),
    )


def build_distiller_model(settings: Settings, server: ChatBackend) -> DistillerModel | None:
    """The model that writes rules, where it is not the served one; `server` has it."""
    name = settings.distiller_model
    return None if name is None else DistillerModel(server, name)


def build_learner(
    settings: Settings,
    store: RuleStore,
    loop: Loop,
    embedder: Embedder,
    planner: EffortPlanner,
    gated: Callable[[str], bool],
    judge: Judge,
    tracer: Tracer = NO_TRACES,
    rng: random.Random | None = None,
    metrics: Metrics | None = None,
) -> Learner:
    distilling = build_distilling(settings, store, loop, embedder, judge)
    return Learner(
        store,
        loop,
        embedder,
        planner,
        build_gatekeeper(settings, store, loop, judge),
        build_teacher(settings, store, loop, judge, distilling, gated),
        distilling,
        gated,
        judges(settings, gated),
        LearnerOptions(
            calls_per_hour=settings.learn_calls_per_hour,
            tokens_per_hour=settings.learn_tokens_per_hour,
            replays_per_job=settings.gate_calls_per_answer,
        ),
        tracer,
        rng,
        metrics,
    )


def build_feedback_intake(
    settings: Settings,
    store: RuleStore,
    judge: Judge,
    embedder: Embedder,
    wake: Callable[[Tenant], None],
) -> FeedbackIntake:
    options = FeedbackOptions(settings.learn, settings.examples, settings.embedding_timeout)
    return FeedbackIntake(store, judge, embedder, wake, options)


async def build_worker(settings: Settings, store: RuleStore, learner: Learner) -> Worker:
    """Of a store that is open; from now on its jobs are handed out. Raises
    `ConfigurationError`."""
    if not settings.on_postgresql:
        return LocalWorker(store, learner, settings.learn_concurrency, settings.job_lease / 3)
    # Imported here: whoever has no PostgreSQL needs no queue.
    from app.learning.postgres_queue import LearningQueue, QueueWorker

    address = libpq_address(parse_url(settings.resolved_database_url))
    queue = LearningQueue(address, lease=settings.job_lease)
    await queue.prepare()
    store.jobs.hand_out_to(queue.put)
    return QueueWorker(store, learner, queue, settings.learn_concurrency)


@asynccontextmanager
async def opened_store(
    settings: Settings, embedding_model: str | None = None, *, upgrade: bool = True
) -> AsyncIterator[RuleStore]:
    """The store of these settings. `embedding_model` None: the one that they name, which is not
    loaded for it. `upgrade`: a database is made where there is none, and an older one brought to
    this version's schema; else nothing is made or changed by opening it. Raises
    `ConfigurationError` with one sentence that says what to mend."""
    if upgrade:
        make_data_dir(settings)
    with explained(settings):
        store = await RuleStore.open(
            settings.resolved_database_url,
            embedding_model=embedding_model or build_embedder(settings).name,
            data_dir=settings.data_dir,
            options=store_options(settings),
            upgrade=upgrade,
        )
    try:
        yield store
    finally:
        await store.close()


def make_data_dir(settings: Settings) -> None:
    """Raises `ConfigurationError`."""
    try:
        make_folder(settings.data_dir)
    except OSError as error:
        folder = settings.data_dir.absolute()
        raise ConfigurationError(
            f"TTCL_DATA_DIR: {folder} can't be made: {error.strerror}"
        ) from error


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """What stands in the way of opening the database becomes a `ConfigurationError` that says what
    to do about it."""
    try:
        yield
    except DatabaseMissing as error:
        where = ""
        if settings.database_url is None and not settings.data_dir.is_absolute():
            where = (
                f" The data folder '{settings.data_dir}' (TTCL_DATA_DIR) is looked for where a "
                "command runs: run it where the gateway runs, or set the folder's full path."
            )
        raise ConfigurationError(
            f"{error}{where} Only `ttcl serve`, `ttcl worker`, `ttcl upgrade` and what adds "
            "something make a new one."
        ) from error
    except SchemaOutdated as error:
        raise ConfigurationError(f"{error} `ttcl upgrade` brings it there.") from error
    except OlderProcesses as error:
        raise ConfigurationError(
            f"{error} Then start again, or run `ttcl upgrade` (docs/upgrading.md)."
        ) from error
    except StoreUnavailable as error:
        raise ConfigurationError(str(error)) from error


def store_options(settings: Settings) -> StoreOptions:
    return StoreOptions(
        capacity=settings.capacity,
        example_capacity=settings.example_capacity,
        example_days=settings.example_days,
        pruning=settings.pruning,
        merge_threshold=settings.experiment.merge_threshold,
        lease=settings.job_lease,
        max_attempts=settings.job_attempts,
        gate=GateOptions(replays=settings.experiment.gate_replays),
        half_life_days=settings.experiment.lift_half_life_days,
        control_rate=settings.control_rate,
        feedback_keys=settings.feedback_keys,
        keys_outside=len(settings.api_keys),
    )


def build_loop(
    settings: Settings,
    backend: ChatBackend,
    embedder: Embedder,
    equivalence: Equivalence,
    prompts: PromptLibrary,
    store: RuleStore | None = None,
    distiller_model: DistillerModel | None = None,
) -> Loop:
    """`store`: whose namespaces say what is confidential; None: nothing is. `distiller_model`: what
    writes the rules; None: the served model."""
    options = LoopOptions(
        explorer=ExplorerOptions(
            students=settings.students,
            temperature=settings.student_temperature,
            top_p=settings.student_top_p,
            timeout=settings.explore_timeout,
            concurrency=settings.explore_concurrency,
            max_tokens=settings.sample_max_tokens,
        ),
        stops_early=settings.stops_early,
        open_spread=settings.experiment.open_spread,
        example_place=settings.experiment.example_place,
        **({} if store is None else {"confidential": confidential(store)}),
    )
    return Loop(backend, embedder, equivalence, prompts, options, distiller_model)
