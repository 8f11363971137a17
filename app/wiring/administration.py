"""What a command needs to use the admin API in its own process, on a store that it has opened."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.access.callers import KeyRing
from app.access.metering import Meter
from app.access.tenants import FairSlots
from app.learning.evaluation.outcomes import Judge
from app.loop.reflect.equivalence import Equivalence
from app.loop.steer.budget import TokenCounter
from app.loop.steer.explain import Explainer
from app.settings import Settings
from app.upstream.embeddings import CachedEmbedder
from app.wiring.container import AdminState
from app.wiring.factories import (
    build_feedback_intake,
    build_retriever,
    build_upstream,
    build_writer,
    load_prompts,
)
from rules_store.policy.turns import Tenant
from rules_store.store import RuleStore


class NobodyWaits:
    """Who works on jobs finds those of other processes by looking."""

    def wake(self, tenant: Tenant | None = None) -> None:
        """Nothing to do."""


async def open_administration(
    settings: Settings,
    store: RuleStore,
    embedder: CachedEmbedder,
    admin_key: str,
    stack: AsyncExitStack,
) -> AdminState:
    """`embedder`: where it is not started, what is written waits for a gateway to embed it. `stack`
    takes all down again, but for store and embedder."""
    prompts = load_prompts(settings)
    equivalence = Equivalence()
    stack.push_async_callback(equivalence.close)
    upstream = build_upstream(
        settings,
        settings.upstream_base_url or "http://127.0.0.1/v1",
        availability=lambda: "a command asks no model server",
    )
    stack.push_async_callback(upstream.close)
    waiting = NobodyWaits()
    judge = Judge(equivalence, embedder)
    return AdminState(
        settings=settings,
        admin_key=admin_key,
        # Theirs too: a request is found by its id and whose it was.
        keys=KeyRing(store, (key.get_secret_value() for key in settings.api_keys), admin_key),
        meter=Meter(store),
        large_bodies=FairSlots(slots=2, share=1),
        store=store,
        upstream=upstream,
        embedder=embedder,
        prompts=prompts,
        feedback=build_feedback_intake(settings, store, judge, embedder, waiting.wake),
        explainer=Explainer(
            store,
            build_retriever(settings, store, embedder),
            TokenCounter(upstream),
            build_writer(settings, prompts, store),
            settings.experience_token_budget,
        ),
        worker=waiting,
    )
