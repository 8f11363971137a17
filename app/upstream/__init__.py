"""Clients of the model server and of the embedding model."""

from app.upstream.call_limiter import CallLimiter
from app.upstream.client import Upstream
from app.upstream.embeddings import CachedEmbedder, Embedder, EmbeddingFailed
from app.upstream.types import ChatBackend, Completion

__all__ = [
    "CachedEmbedder",
    "CallLimiter",
    "ChatBackend",
    "Completion",
    "Embedder",
    "EmbeddingFailed",
    "Upstream",
]
