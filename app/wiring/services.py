"""What a gateway and a worker process have in common, opened in its order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from app.learning.evaluation.outcomes import Judge
from app.learning.local_worker import Worker
from app.loop.effort_planner import EffortPlanner
from app.loop.loop import Loop
from app.loop.reflect.equivalence import Equivalence
from app.loop.steer.retriever import Retriever
from app.observability.metrics import Metrics
from app.observability.tracing import Tracer
from app.prompt_library import PromptLibrary
from app.settings import Settings
from app.upstream.client import Upstream
from app.upstream.distiller_model import DistillerModel
from app.upstream.embeddings import Embedder
from app.wiring.factories import (
    build_distiller_model,
    build_distiller_server,
    build_embedder,
    build_learner,
    build_loop,
    build_planner,
    build_retriever,
    build_upstream,
    build_worker,
    opened_store,
)
from rules_store.store import RuleStore


@dataclass(frozen=True, slots=True)
class Services:
    """Each exists once in a process."""

    store: RuleStore
    embedder: Embedder
    upstream: Upstream
    distiller_model: DistillerModel | None
    loop: Loop
    retriever: Retriever
    planner: EffortPlanner
    judge: Judge
    worker: Worker
    """Not started."""
    metrics: Metrics


async def open_services(
    settings: Settings,
    prompts: PromptLibrary,
    tracer: Tracer,
    stack: AsyncExitStack,
    embedder: Embedder | None = None,
) -> Services:
    """`stack` takes them down again in the reverse order. `embedder` replaces the one that the
    settings name (for tests). Raises `ConfigurationError`."""
    if embedder is None:
        built = build_embedder(settings)
        built.start()
        stack.push_async_callback(built.close)
        embedder = built
    store = await stack.enter_async_context(opened_store(settings, embedder.name))
    await store.begin_to_serve()
    base_url, availability = await _model_server(settings, stack)
    upstream = build_upstream(settings, base_url, availability=availability)
    stack.push_async_callback(upstream.close)
    equivalence = Equivalence()
    stack.push_async_callback(equivalence.close)
    server = build_distiller_server(settings)
    if server is not None:
        stack.push_async_callback(server.close)
    distiller_model = build_distiller_model(settings, server or upstream)
    loop = build_loop(settings, upstream, embedder, equivalence, prompts, store, distiller_model)
    retriever = build_retriever(settings, store, embedder)
    planner = build_planner(settings, store, embedder)
    judge = Judge(equivalence, embedder)
    metrics = Metrics()
    learner = build_learner(
        settings, store, loop, embedder, planner, retriever.gated, judge, tracer, metrics=metrics
    )
    worker = await build_worker(settings, store, learner)
    metrics.follow(
        backlog=lambda: worker.backlog.total,
        indexed=lambda: store.rules_indexed,
        examples_indexed=lambda: store.examples_indexed,
        stood_in=lambda: 0 if distiller_model is None else distiller_model.stood_in,
    )
    return Services(
        store,
        embedder,
        upstream,
        distiller_model,
        loop,
        retriever,
        planner,
        judge,
        worker,
        metrics,
    )


async def _model_server(
    settings: Settings, stack: AsyncExitStack
) -> tuple[str, Callable[[], str | None]]:
    """Base URL of the upstream, and what tells that it is known to be down. Where none is
    configured that is an embedded model, and nobody waits for it here."""
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
