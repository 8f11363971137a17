"""A process that only learns: `ttcl worker`, as many of them as there is to learn."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from app.exceptions import ConfigurationError
from app.observability.tracing import open_tracer
from app.settings import Settings
from app.wiring.background import keep_running
from app.wiring.factories import WATCH_INTERVAL, load_prompts
from app.wiring.services import open_services

log = structlog.get_logger(__name__)


def check(settings: Settings) -> None:
    """Raises `ConfigurationError` for what a worker can't do without."""
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


async def work(
    settings: Settings, metrics_port: int | None, ready: Callable[[], None] = lambda: None
) -> None:
    """Until SIGTERM or SIGINT; jobs under way go back into the queue. Raises
    `ConfigurationError`."""
    check(settings)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    tracer = open_tracer()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tracer.close)
        services = await open_services(settings, load_prompts(settings), tracer, stack)
        worker = services.worker
        keep_running(stack, services.store.watch(WATCH_INTERVAL))
        if metrics_port is not None:
            stack.callback(services.metrics.serve(metrics_port))
        worker.start()
        stack.push_async_callback(worker.stop)
        log.info("learning", owner=worker.learner.owner, jobs_at_a_time=settings.learn_concurrency)
        ready()
        await stopped.wait()
        log.info("stopping: jobs under way go back into the queue")
