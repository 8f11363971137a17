"""Builds every object from the settings, for the gateway and for the worker process alike."""

from app.wiring.container import AppState
from app.wiring.factories import (
    build_embedder,
    build_loop,
    build_retriever,
    load_prompts,
    opened_store,
)

__all__ = [
    "AppState",
    "build_embedder",
    "build_loop",
    "build_retriever",
    "load_prompts",
    "opened_store",
]
