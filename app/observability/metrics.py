"""Prometheus metrics of one application; labels come from small fixed sets.

Where several processes serve behind one port (`app.cli.processes`), each counts into files of a
folder that they share, by prometheus_client's multiprocess mode, and whichever is asked tells the
sums. What is followed, not counted, is told by the one that is asked: it is the same in each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.domain.trajectory import Cost
from rules_store.models.effect import Purpose, SignalEffect
from rules_store.policy.control import Arm

MOST_LABELLED = 200
"""Label values of namespaces in one family: their number is for users to say."""
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder which processes share; read by prometheus_client."""
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
        self.open = Gauge(
            "ttcl_requests_open",
            "Chat requests under way",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
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
        self.learning_outcomes = Counter(
            "ttcl_learning_outcomes",
            "Learning jobs ended here, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self._learning_calls = Counter(
            "ttcl_learning_calls",
            "Upstream calls of learning, by purpose",
            ["purpose"],
            registry=self.registry,
        )
        self._learning_tokens = Counter(
            "ttcl_learning_tokens",
            "Tokens of these calls, by purpose",
            ["purpose"],
            registry=self.registry,
        )
        for purpose in Purpose:
            self.spent(purpose, Cost())
        self._followed: list[Collector] = []

    def spent(self, purpose: Purpose, cost: Cost) -> None:
        """What learning has spent in this process."""
        self._learning_calls.labels(purpose.value).inc(cost.calls)
        self._learning_tokens.labels(purpose.value).inc(cost.tokens)

    def follow(
        self,
        *,
        backlog: Callable[[], float],
        indexed: Callable[[], float],
        examples_indexed: Callable[[], float],
        stood_in: Callable[[], float],
    ) -> None:
        """From now on the gauges show what these say when somebody looks: learning jobs waiting,
        rules and examples in the index, and how often the served model wrote rules because the one
        that should did not answer."""
        self._follow(_Indexed(backlog, indexed, examples_indexed))
        self._follow(_StoodIn(stood_in))

    def follow_effect(
        self,
        *,
        suspended: Callable[[], Sequence[str]],
        signals: Callable[[], Sequence[tuple[str, SignalEffect]]],
    ) -> None:
        """From now on the gauges show what these say when somebody looks: the namespaces that are
        not steered, and what signals say of a namespace; of neither more than `MOST_LABELLED`."""
        self._follow(_Effect(suspended, signals))

    def _follow(self, what: Collector) -> None:
        self._followed.append(what)
        self.registry.register(what)

    def serve(self, port: int) -> Callable[[], None]:
        """`/metrics` on a port of its own, for a process that serves nothing else. Returns what
        ends it."""
        server, thread = start_http_server(port, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            thread.join()

        return stop

    def render(self) -> bytes:
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        for each in self._followed:
            together.register(each)
        return generate_latest(together)


class _Indexed(Collector):
    """What waits, and what this process has in memory."""

    def __init__(
        self,
        backlog: Callable[[], float],
        rules: Callable[[], float],
        examples: Callable[[], float],
    ) -> None:
        self._told = (
            ("ttcl_learning_backlog", "Learning jobs waiting", backlog),
            ("ttcl_rules_indexed", "Rules in this process's index", rules),
            ("ttcl_examples_indexed", "Active examples in this process's index", examples),
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, meaning, value in self._told:
            yield GaugeMetricFamily(name, meaning, value=value())


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


def forget_the_dead(folder: Path) -> None:
    """Open requests of processes that are gone from the folder of `SHARED`; what they have counted
    stays."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass
