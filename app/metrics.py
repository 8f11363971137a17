"""Prometheus metrics of one application; labels come from small fixed sets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One registry per application, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ttcl_requests", "Chat requests", ["mode", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "ttcl_request_seconds",
            "Seconds until a chat request was answered, or its stream opened",
            ["mode"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.degraded = Counter(
            "ttcl_degraded",
            "Requests for which a step was skipped",
            ["reason"],
            registry=self.registry,
        )
        self.injected = Counter("ttcl_rules_injected", "Rules injected", registry=self.registry)
        self.skipped = Counter(
            "ttcl_learning_skipped",
            "Requests that were not learned from",
            ["reason"],
            registry=self.registry,
        )
        self.jobs = Gauge("ttcl_learning_backlog", "Learning jobs waiting", registry=self.registry)
        self.outcomes = Gauge(
            "ttcl_learning_outcomes",
            "Learning jobs ended in this process, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.rules = Gauge(
            "ttcl_rules_indexed", "Rules in this process's index", registry=self.registry
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
