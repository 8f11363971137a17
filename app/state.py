"""All that lives as long as the application, typed; built in `app.main`, read by `app.api`."""

from __future__ import annotations

from dataclasses import dataclass

from app.chat.closing import Closing
from app.chat.service import ChatService
from app.keys import KeyRing
from app.load import Load
from app.metering import Meter
from app.metrics import Metrics
from app.settings import Settings
from app.steer.explain import Explainer
from app.steer.retriever import Retriever
from app.templates import PromptLibrary
from app.upstream.client import Upstream
from app.upstream.embeddings import Embedder
from app.worker import Worker
from app.worth.evidence import Judge
from rules_store.store import RuleStore


@dataclass(slots=True)
class AppState:
    settings: Settings
    admin_key: str
    keys: KeyRing
    meter: Meter
    load: Load
    store: RuleStore
    upstream: Upstream
    embedder: Embedder
    prompts: PromptLibrary
    retriever: Retriever
    judge: Judge
    explainer: Explainer
    service: ChatService
    closing: Closing
    worker: Worker
    metrics: Metrics
