"""`create_app`: the only place where objects are built and wired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import structlog
from fastapi import FastAPI

from app import __version__
from app.access.admin_key import load_admin_key
from app.access.callers import KeyRing
from app.access.load_limit import Load
from app.access.metering import Meter
from app.api import admin, chat, errors, feedback, health, models, openapi
from app.api.middleware import BodyLimit, RequestId, Traces
from app.chat.finishing import Closing
from app.chat.inline_exploration import InlineExploration
from app.chat.recorder import LearnPolicy, Recorder
from app.chat.relay import Relay
from app.chat.service import ChatService
from app.chat.steering import Steering
from app.console import site
from app.exceptions import TTCLError
from app.learning.evaluation.evidence import Judge
from app.learning.reembed import reembed
from app.loop.reflect.equivalence import Equivalence
from app.loop.steer.budget import TokenCounter
from app.loop.steer.explain import Explainer
from app.observability.metrics import Metrics
from app.observability.tracing import NO_TRACES, Tracer, open_tracer
from app.prompt_library import PromptLibrary
from app.settings import Settings
from app.upstream.embeddings import Embedder
from app.wiring.background import SteadyTime, freeze_when, keep_running
from app.wiring.container import AppState
from app.wiring.factories import (
    WATCH_INTERVAL,
    build_embedder,
    build_learner,
    build_loop,
    build_planner,
    build_retriever,
    build_upstream,
    build_worker,
    load_prompts,
    open_store,
)
from rules_store.errors import StoreUnavailable
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

INTERRUPTED_AFTER = timedelta(hours=1)
"""No request takes this long: an older one without an end was cut by a crash."""
SWEEP_INTERVAL = 60.0
METER_INTERVAL = 3.0
"""Seconds between writings of what keys have used."""


def create_app(settings: Settings, *, embedder: Embedder | None = None) -> FastAPI:
    """The gateway. Raises `ConfigurationError` for what can be known to be wrong at once;
    `embedder` replaces the one that the settings name (for tests)."""
    prompts = load_prompts(settings)
    key = load_admin_key(settings)
    tracer = open_tracer()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(tracer.close)
            try:
                app.state.ttcl = await _build(settings, prompts, key, embedder, tracer, stack)
            except TTCLError as error:
                app.state.startup_error = error
                raise
            yield

    app = FastAPI(
        title="ttcl",
        version=__version__,
        summary="A frozen language model that gets better at its work, at test time",
        lifespan=lifespan,
        # FastAPI's own spans would double ours, and its logs carry what exceptions say.
        telemetry={"tracing": False, "logs": False},
        generate_unique_id_function=openapi.operation_id,
    )
    errors.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    if tracer is not NO_TRACES:
        app.add_middleware(Traces, tracer=tracer, path=chat.PATH)
    app.add_middleware(RequestId)
    for module in (chat, models, feedback, health, admin):
        app.include_router(module.router)
    site.install(app)
    return app


async def _build(
    settings: Settings,
    prompts: PromptLibrary,
    admin_key: str,
    embedder: Embedder | None,
    tracer: Tracer,
    stack: AsyncExitStack,
) -> AppState:
    """Every object in its order; `stack` takes them down again in the reverse one."""
    if embedder is None:
        built = build_embedder(settings)
        built.start()
        stack.push_async_callback(built.close)
        embedder = built
    store = await open_store(settings, embedder.name)
    stack.push_async_callback(store.close)
    base_url, availability = await _model_server(settings, stack)
    upstream = build_upstream(settings, base_url, availability=availability)
    stack.push_async_callback(upstream.close)
    equivalence = Equivalence()
    stack.push_async_callback(equivalence.close)
    loop = build_loop(settings, upstream, embedder, equivalence, prompts)
    retriever = build_retriever(settings, store, embedder)
    planner = build_planner(settings, store, embedder)
    judge = Judge(equivalence, embedder)
    gated = retriever.gated
    learner = build_learner(settings, store, loop, embedder, planner, gated, judge, tracer)
    worker = await build_worker(settings, store, learner)
    load = Load(settings.max_open_requests)
    metrics = Metrics()
    metrics.follow(
        backlog=lambda: worker.backlog,
        indexed=lambda: store.rules_indexed,
        outcomes=worker.learner.outcomes,
    )
    metrics.open.set_function(lambda: load.open)
    recorder = Recorder(
        store,
        worker,
        load,
        LearnPolicy(settings.learn, settings.learn_sample_rate, settings.learn_backlog),
    )
    counter, budget = TokenCounter(upstream), settings.rules_token_budget
    steering = Steering(retriever, recorder, counter, prompts, metrics, budget)
    closing = Closing(recorder, steering, metrics)
    meter = Meter(store)
    stack.push_async_callback(meter.flush)
    service = ChatService(
        steering,
        Relay(upstream, steering, closing, meter),
        InlineExploration(loop, planner, steering, closing, meter),
        closing,
    )
    if not settings.on_postgresql:
        # One gateway to a SQLite file: what has no end yet was begun by a process that is gone.
        await store.episodes.sweep_interrupted(timedelta(0))
    keep_running(
        stack,
        store.watch(WATCH_INTERVAL),
        meter.run(METER_INTERVAL),
        reembed(store, embedder),
        freeze_when(lambda: embedder.ready),
        _sweep(store),
    )
    stack.push_async_callback(closing.drain)
    worker.start()
    stack.push_async_callback(worker.stop)
    return AppState(
        settings=settings,
        admin_key=admin_key,
        keys=KeyRing(store, (key.get_secret_value() for key in settings.api_keys), admin_key),
        meter=meter,
        load=load,
        store=store,
        upstream=upstream,
        embedder=embedder,
        prompts=prompts,
        retriever=retriever,
        judge=judge,
        explainer=Explainer(store, retriever, counter, prompts, budget),
        service=service,
        closing=closing,
        worker=worker,
        metrics=metrics,
    )


async def _model_server(
    settings: Settings, stack: AsyncExitStack
) -> tuple[str, Callable[[], str | None]]:
    """Base URL of the upstream, and what tells that it is known to be down. Where none is
    configured that is an embedded model; the gateway does not wait for it."""
    if settings.upstream_base_url is not None:
        return settings.upstream_base_url, lambda: None
    from app.engine.supervisor import EngineSupervisor

    engine = EngineSupervisor(
        backend=settings.engine.value,
        model=settings.engine_model,
        data_dir=settings.data_dir,
    )
    await engine.start()
    stack.push_async_callback(engine.stop)
    return f"{engine.base_url}/v1", engine.why_unavailable


async def _sweep(store: RuleStore) -> None:
    """Goes on whatever happens: without it neither interruptions nor retention are seen to."""
    steady = SteadyTime()
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        try:
            await store.episodes.sweep_interrupted(INTERRUPTED_AFTER)
            if gone := await store.episodes.expire(steady()):
                log.info("episodes deleted by retention", count=gone)
        except StoreUnavailable as error:
            log.warning("sweep postponed", error=str(error))
        except Exception:
            log.exception("sweep failed")
