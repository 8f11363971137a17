"""The parts that the gateway and the benchmarks build alike, from settings."""

from __future__ import annotations

from app.effort.planner import EffortPlanner
from app.explore.group import ExplorerOptions
from app.loop import Loop, LoopOptions
from app.reflect.equivalence import Equivalence
from app.settings import Settings
from app.steer.retriever import Retriever, WorthOptions
from app.templates import PromptLibrary
from app.upstream.embeddings import (
    CachedEmbedder,
    Embedder,
    local_embedder,
    remote_embedder,
)
from app.upstream.types import ChatBackend
from app.worth.evidence import Judge
from app.worth.gatekeeper import Gatekeeper, GateSettings
from rules_store.gate import GateOptions
from rules_store.store import RuleStore
from rules_store.types import StoreOptions


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
    return Retriever(
        store,
        embedder,
        floor=settings.similarity_floor,
        mmr_lambda=settings.mmr_lambda,
        timeout=settings.embedding_timeout if timeout is None else timeout,
        policy=settings.resolved_policy,
        worth=WorthOptions(
            utility_weight=settings.utility_weight,
            abstention=settings.abstention,
            hold_out_rate=settings.hold_out_rate,
            unproven_share=settings.unproven_share,
            triggers=settings.trigger_retrieval,
        ),
    )


def build_planner(settings: Settings, store: RuleStore, embedder: Embedder) -> EffortPlanner:
    confidence = settings.explore_confidence
    return EffortPlanner(store, embedder, enabled=settings.adapts, confidence=confidence)


def build_gatekeeper(settings: Settings, store: RuleStore, loop: Loop, judge: Judge) -> Gatekeeper:
    floor = settings.similarity_floor
    return Gatekeeper(store, loop, judge, GateSettings(floor, settings.probation))


def store_options(settings: Settings) -> StoreOptions:
    return StoreOptions(
        capacity=settings.capacity,
        pruning=settings.pruning,
        merge_threshold=settings.merge_threshold,
        lease=settings.job_lease,
        max_attempts=settings.job_attempts,
        gate=GateOptions(replays=settings.gate_replays),
        half_life_days=settings.lift_half_life_days,
    )


def build_loop(
    settings: Settings,
    backend: ChatBackend,
    embedder: Embedder,
    equivalence: Equivalence,
    prompts: PromptLibrary,
) -> Loop:
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
        open_spread=settings.open_spread,
    )
    return Loop(backend, embedder, equivalence, prompts, options)
