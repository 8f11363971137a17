"""A process that only learns: `ttcl worker`, as many of them as there is to learn."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from app.exceptions import ConfigurationError
from app.learning.evaluation.evidence import Judge
from app.loop.reflect.equivalence import Equivalence
from app.observability.metrics import Metrics
from app.observability.tracing import open_tracer
from app.settings import Settings
from app.wiring.background import keep_running
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

log = structlog.get_logger(__name__)


def check(settings: Settings) -> str:
    """The model server's address. Raises `ConfigurationError` for what a worker can't do
    without."""
    if not settings.on_postgresql:
        raise ConfigurationError(
            "ttcl worker needs PostgreSQL (TTCL_DATABASE_URL=postgresql://...); on SQLite the "
            "gateway learns by itself"
        )
    if settings.upstream_base_url is None:
        raise ConfigurationError(
            "ttcl worker starts no model: set TTCL_UPSTREAM_BASE_URL to the gateways' model server"
        )
    if settings.learn_concurrency == 0:
        raise ConfigurationError("TTCL_LEARN_CONCURRENCY: a worker with 0 would do nothing")
    return settings.upstream_base_url


async def work(
    settings: Settings, metrics_port: int | None, ready: Callable[[], None] = lambda: None
) -> None:
    """Until SIGTERM or SIGINT; jobs under way go back into the queue. Raises
    `ConfigurationError`."""
    base_url = check(settings)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    tracer = open_tracer()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tracer.close)
        embedder = build_embedder(settings)
        embedder.start()
        stack.push_async_callback(embedder.close)
        store = await open_store(settings, embedder.name)
        stack.push_async_callback(store.close)
        upstream = build_upstream(settings, base_url)
        stack.push_async_callback(upstream.close)
        equivalence = Equivalence()
        stack.push_async_callback(equivalence.close)
        retriever = build_retriever(settings, store, embedder)
        learner = build_learner(
            settings,
            store,
            build_loop(settings, upstream, embedder, equivalence, load_prompts(settings)),
            embedder,
            build_planner(settings, store, embedder),
            retriever.gated,
            Judge(equivalence, embedder),
            tracer,
        )
        worker = await build_worker(settings, store, learner)
        keep_running(stack, store.watch(WATCH_INTERVAL))
        if metrics_port is not None:
            metrics = Metrics()
            metrics.follow(
                backlog=lambda: worker.backlog,
                indexed=lambda: store.rules_indexed,
                outcomes=worker.learner.outcomes,
            )
            stack.callback(metrics.serve(metrics_port))
        worker.start()
        stack.push_async_callback(worker.stop)
        log.info("learning", owner=learner.owner, jobs_at_a_time=settings.learn_concurrency)
        ready()
        await stopped.wait()
        log.info("stopping: jobs under way go back into the queue")
