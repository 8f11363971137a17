"""Logs, traces and metrics."""

from app.observability.logs import configure
from app.observability.metrics import Metrics
from app.observability.tracing import Tracer, open_tracer, span

__all__ = [
    "Metrics",
    "Tracer",
    "configure",
    "open_tracer",
    "span",
]
