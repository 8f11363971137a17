"""Prometheus metrics of one application; labels come from small fixed sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

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
        self.stood_still = Histogram(
            "ttcl_loop_stood_still_seconds",
            "Pauses of a tenth of a second and more in which the event loop answered nobody",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.open = Gauge("ttcl_requests_open", "Chat requests under way", registry=self.registry)
        self.degraded = Counter(
            "ttcl_degraded",
            "Requests for which a step was skipped",
            ["reason"],
            registry=self.registry,
        )
        self.injected = Counter("ttcl_rules_injected", "Rules injected", registry=self.registry)
        self.recalled = Counter(
            "ttcl_examples_injected", "Examples injected", registry=self.registry
        )
        self.given = Counter(
            "ttcl_given",
            "Steered requests by what they were given: none, rules, examples or both",
            ["given"],
            registry=self.registry,
        )
        self.skipped = Counter(
            "ttcl_learning_skipped",
            "Requests that were not learned from",
            ["reason"],
            registry=self.registry,
        )
        self.jobs = Gauge("ttcl_learning_backlog", "Learning jobs waiting", registry=self.registry)
        self.rules = Gauge(
            "ttcl_rules_indexed", "Rules in this process's index", registry=self.registry
        )
        self.examples = Gauge(
            "ttcl_examples_indexed",
            "Active examples in this process's index",
            registry=self.registry,
        )

    def follow(
        self,
        *,
        backlog: Callable[[], float],
        indexed: Callable[[], float],
        examples_indexed: Callable[[], float],
        outcomes: Mapping[str, int],
    ) -> None:
        """From now on the gauges show what these say when somebody looks: learning jobs waiting,
        rules and examples in the index, and how many jobs ended with each outcome."""
        self.jobs.set_function(backlog)
        self.rules.set_function(indexed)
        self.examples.set_function(examples_indexed)
        self.registry.register(_Outcomes(outcomes))

    def serve(self, port: int) -> Callable[[], None]:
        """`/metrics` on a port of its own, for a process that serves nothing else. Returns what
        ends it."""
        server, thread = start_http_server(port, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            thread.join()

        return stop

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Outcomes(Collector):
    """How this process's learning jobs ended."""

    def __init__(self, outcomes: Mapping[str, int]) -> None:
        self._outcomes = outcomes

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "ttcl_learning_outcomes",
            "Learning jobs ended in this process, by outcome",
            labels=["outcome"],
        )
        for outcome, count in self._outcomes.items():
            family.add_metric([outcome], count)
        yield family
