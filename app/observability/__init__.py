"""Logs, traces and metrics."""

from app.observability.logs import configure
from app.observability.metrics import Metrics
from app.observability.tracing import Span, Tracer, open_tracer, span

__all__ = [
    "Metrics",
    "Span",
    "Tracer",
    "configure",
    "open_tracer",
    "span",
]
