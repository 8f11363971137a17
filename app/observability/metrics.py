"""Prometheus metrics of one application; labels come from small fixed sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from app.domain.trajectory import Cost
from rules_store.models.effect import Purpose, SignalEffect
from rules_store.policy.control import Arm

MOST_LABELLED = 200
"""Label values of namespaces in one family: their number is for users to say."""
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
        self.arms = Counter(
            "ttcl_arms",
            "Requests that were drawn for, by arm: control or steered",
            ["arm"],
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
        spent: Mapping[Purpose, Cost],
        stood_in: Callable[[], float],
    ) -> None:
        """From now on the gauges show what these say when somebody looks: learning jobs waiting,
        rules and examples in the index, how many jobs ended with each outcome, what learning has
        spent in this process, and how often the served model wrote rules because the one that
        should did not answer."""
        self.jobs.set_function(backlog)
        self.rules.set_function(indexed)
        self.examples.set_function(examples_indexed)
        self.registry.register(_Outcomes(outcomes))
        self.registry.register(_Spent(spent))
        self.registry.register(_StoodIn(stood_in))

    def follow_effect(
        self,
        *,
        suspended: Callable[[], Sequence[str]],
        signals: Callable[[], Sequence[tuple[str, SignalEffect]]],
    ) -> None:
        """From now on the gauges show what these say when somebody looks: the namespaces that are
        not steered, and what signals say of a namespace; of neither more than `MOST_LABELLED`."""
        self.registry.register(_Effect(suspended, signals))

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


class _Spent(Collector):
    """Upstream calls and tokens of this process's learning."""

    def __init__(self, spent: Mapping[Purpose, Cost]) -> None:
        self._spent = spent

    def collect(self) -> Iterator[CounterMetricFamily]:
        calls = CounterMetricFamily(
            "ttcl_learning_calls", "Upstream calls of learning, by purpose", labels=["purpose"]
        )
        tokens = CounterMetricFamily(
            "ttcl_learning_tokens", "Tokens of these calls, by purpose", labels=["purpose"]
        )
        for purpose in Purpose:
            cost = self._spent.get(purpose, Cost())
            calls.add_metric([purpose.value], cost.calls)
            tokens.add_metric([purpose.value], cost.tokens)
        yield calls
        yield tokens


class _StoodIn(Collector):
    """A count that is kept elsewhere."""

    def __init__(self, stood_in: Callable[[], float]) -> None:
        self._stood_in = stood_in

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "ttcl_distiller_stand_ins",
            "Rules that the served model wrote because the distiller's model did not answer",
            value=self._stood_in(),
        )


class _Effect(Collector):
    """What steering does, by namespace."""

    def __init__(
        self,
        suspended: Callable[[], Sequence[str]],
        signals: Callable[[], Sequence[tuple[str, SignalEffect]]],
    ) -> None:
        self._suspended = suspended
        self._signals = signals

    def collect(self) -> Iterator[GaugeMetricFamily]:
        suspended = GaugeMetricFamily(
            "ttcl_steering_suspended",
            "1 for each namespace that the guard has suspended steering of",
            labels=["namespace"],
        )
        for namespace in self._suspended()[:MOST_LABELLED]:
            suspended.add_metric([namespace], 1)
        yield suspended
        differences = GaugeMetricFamily(
            "ttcl_effect",
            "Outcome steered less outcome in control: estimate, and bounds that hold at any time",
            labels=["namespace", "signal", "bound"],
        )
        counted = GaugeMetricFamily(
            "ttcl_effect_conversations",
            "Conversations that the effect is estimated from",
            labels=["namespace", "signal", "arm"],
        )
        for namespace, each in self._signals()[:MOST_LABELLED]:
            labels = [namespace, each.signal.value]
            shown = each.interval
            for name, value in (("low", shown.low), ("high", shown.high)):
                differences.add_metric([*labels, name], value)
            if shown.difference is not None:
                differences.add_metric([*labels, "estimate"], shown.difference)
            counted.add_metric([*labels, Arm.CONTROL.value], each.state.control.count)
            counted.add_metric([*labels, Arm.STEERED.value], each.state.steered.count)
        yield differences
        yield counted
