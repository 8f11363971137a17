"""All that lives as long as the gateway, typed; made in `app.wiring.gateway` for `app.api`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.access.callers import KeyRing
from app.access.load_limit import LoadLimit
from app.access.metering import Meter
from app.access.tenants import FairSlots
from app.chat.service import ChatService
from app.learning.feedback import FeedbackIntake
from app.learning.local_worker import Worker
from app.learning.reembed import Reembedding
from app.loop.steer.explain import Explainer
from app.observability.metrics import Metrics
from app.prompt_library import PromptLibrary
from app.settings import Settings
from app.upstream.client import Upstream
from app.upstream.distiller_model import DistillerModel
from app.upstream.embeddings import Embedder
from rules_store.policy.turns import Tenant
from rules_store.store import RuleStore


class Wakes(Protocol):
    """Is told of jobs that have been committed."""

    def wake(self, tenant: Tenant | None = None) -> None: ...


@dataclass(slots=True, kw_only=True)
class AdminState:
    """What the admin API and feedback need: of a gateway, or of a command without one."""

    settings: Settings
    admin_key: str
    keys: KeyRing
    meter: Meter
    large_bodies: FairSlots
    """Turns of those that are read in a thread."""
    store: RuleStore
    upstream: Upstream
    embedder: Embedder
    prompts: PromptLibrary
    feedback: FeedbackIntake
    explainer: Explainer
    worker: Wakes


@dataclass(slots=True, kw_only=True)
class AppState(AdminState):
    distiller_model: DistillerModel | None
    load: LoadLimit
    reembedding: Reembedding
    service: ChatService
    worker: Worker
    metrics: Metrics
