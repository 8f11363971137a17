"""The gateway's own objects over the services that it shares with `ttcl worker`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from app.access.callers import KeyRing
from app.access.load_limit import LoadLimit
from app.access.metering import Meter
from app.access.tenants import FairSlots
from app.chat.finishing import Finisher
from app.chat.format_relay import FormatRelay
from app.chat.inline_exploration import InlineExploration
from app.chat.joining import JoinedRequests
from app.chat.recorder import LearnPolicy, Recorder
from app.chat.relay import Relay
from app.chat.service import ChatService
from app.chat.steering import Steering
from app.exceptions import ConfigurationError
from app.learning.reembed import Reembedding
from app.loop.steer.budget import TokenCounter
from app.loop.steer.explain import Explainer
from app.observability.metrics import MOST_LABELLED
from app.observability.tracing import Tracer
from app.observability.watchdog import watch_loop
from app.prompt_library import PromptLibrary
from app.settings import Settings, is_loopback
from app.upstream.embeddings import Embedder
from app.wiring.background import SteadyClock, freeze_when, keep_running
from app.wiring.container import AppState
from app.wiring.factories import WATCH_INTERVAL, build_feedback_intake, build_writer
from app.wiring.services import open_services
from rules_store.database.engine import parse_url
from rules_store.database.lock import held_alone
from rules_store.errors import StoreUnavailable
from rules_store.models.effect import SignalEffect
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

INTERRUPTED_AFTER = timedelta(hours=1)
"""No request takes this long: an older one without an end was cut by a crash."""
SWEEP_INTERVAL = 60.0
METER_INTERVAL = 3.0
"""Seconds between writings of what keys have used."""


async def open_gateway(
    settings: Settings,
    prompts: PromptLibrary,
    admin_key: str,
    tracer: Tracer,
    stack: AsyncExitStack,
    embedder: Embedder | None = None,
) -> AppState:
    """Every object in its order; `stack` takes them down again in the reverse one. `embedder`
    replaces the one that the settings name. Raises `ConfigurationError`."""
    if not settings.on_postgresql:
        stack.enter_context(_alone(settings))
    services = await open_services(settings, prompts, tracer, stack, embedder)
    store, upstream, worker = services.store, services.upstream, services.worker
    _check_keys(settings, store)
    retriever, metrics = services.retriever, services.metrics
    keys = KeyRing(store, (key.get_secret_value() for key in settings.api_keys), admin_key)
    load = LoadLimit(settings.max_open_requests, lambda: keys.several, metrics.open.set)
    policy = LearnPolicy(settings.learn, settings.learn_sample_rate, settings.learn_backlog)
    recorder = Recorder(store, worker, load, policy)
    counter, budget = TokenCounter(upstream), settings.experience_token_budget
    writer = build_writer(settings, prompts, store)
    watched = EffectWatch(store)
    metrics.follow_effect(suspended=store.effect.suspended, signals=lambda: watched.signals)
    steering = Steering(store.effect, retriever, recorder, counter, writer, metrics, budget)
    finisher = Finisher(recorder, steering, metrics)
    meter = Meter(store)
    stack.push_async_callback(meter.flush)
    joined = JoinedRequests(settings.explore_linger)
    exploration = InlineExploration(
        services.loop,
        services.planner,
        steering,
        finisher,
        meter,
        settings.explore_wait,
        upstream,
    )
    relay = Relay(upstream, steering, finisher, meter)
    format_relay = FormatRelay(upstream, steering, finisher, meter)
    service = ChatService(steering, relay, format_relay, exploration, finisher, joined)
    if not settings.on_postgresql:
        # One gateway to a SQLite file: what has no end yet was begun by a process that is gone.
        await store.episodes.sweep_interrupted(timedelta(0))
    reembedding = Reembedding(store, services.embedder)
    keep_running(
        stack,
        store.watch(WATCH_INTERVAL),
        meter.run(METER_INTERVAL),
        reembedding.run(),
        watch_loop(metrics),
        freeze_when(lambda: services.embedder.ready),
        _sweep(store, watched),
    )
    stack.push_async_callback(finisher.drain)
    stack.push_async_callback(joined.close)
    worker.start()
    stack.push_async_callback(worker.stop)
    return AppState(
        settings=settings,
        admin_key=admin_key,
        keys=keys,
        meter=meter,
        load=load,
        large_bodies=FairSlots(slots=2, share=1, rest=2.0),
        store=store,
        upstream=upstream,
        distiller_model=services.distiller_model,
        embedder=services.embedder,
        reembedding=reembedding,
        prompts=prompts,
        feedback=build_feedback_intake(
            settings, store, services.judge, services.embedder, worker.wake
        ),
        explainer=Explainer(store, retriever, counter, writer, budget),
        service=service,
        worker=worker,
        metrics=metrics,
    )


def _check_keys(settings: Settings, store: RuleStore) -> None:
    """Raises `ConfigurationError` where anybody on the network could ask."""
    if is_loopback(settings.host) or settings.api_keys or store.keys.exist:
        return
    raise ConfigurationError(
        f"host {settings.host} is not loopback and there are no keys: make one with `ttcl keys "
        "create NAME --namespace default`, set TTCL_API_KEYS to a comma-separated list, or bind to "
        "127.0.0.1"
    )


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Raises `ConfigurationError` where another gateway serves the same file."""
    url = parse_url(settings.resolved_database_url)
    try:
        with held_alone(Path(url.database or "")):
            yield
    except StoreUnavailable as error:
        raise ConfigurationError(str(error)) from error


class EffectWatch:
    """What signals say of the namespaces, as of the last look."""

    def __init__(self, store: RuleStore) -> None:
        self._store = store
        self.signals: list[tuple[str, SignalEffect]] = []

    async def look(self, now: datetime) -> None:
        """Has the schedule and the ends of suspensions seen to first. Raises
        `StoreUnavailable`."""
        for each in await self._store.effect.review(now):
            log.info("control group", **dataclasses.asdict(each))
        self.signals = await self._store.effect.latest(MOST_LABELLED)


async def _sweep(store: RuleStore, watched: EffectWatch) -> None:
    """Goes on whatever happens: without it neither interruptions nor retention are seen to."""
    steady = SteadyClock()
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        try:
            await store.episodes.sweep_interrupted(INTERRUPTED_AFTER)
            if gone := await store.episodes.expire(steady()):
                log.info("episodes deleted by retention", count=gone)
            if gone := await store.examples.delete_old(steady()):
                log.info("examples deleted by retention", count=gone)
            if gone := await store.examples.expire(steady()):
                log.info("expired examples retired", count=gone)
            await watched.look(steady())
        except StoreUnavailable as error:
            log.warning("sweep postponed", error=str(error))
        except Exception:
            log.exception("sweep failed")
