"""Optional OpenTelemetry traces: what the loop did for a request, and how long each step took.

Nothing is traced unless the environment names a receiver (OTEL_EXPORTER_OTLP_ENDPOINT). Spans hang
on the one that is current, so only roots need a `Tracer`; where there is no root, a span is one
look at a context variable, and the SDK is not imported.

Names, numbers and ids are all that a span carries: no prompt, no answer, no key, and of an error
only its type, since its message may quote what it is about.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from app.domain.trajectory import Cost
from app.exceptions import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

Value = str | bool | int | float | Sequence[str] | None

FLUSH = 5.0
"""Seconds for the last spans when the process ends."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_CONVENTIONS = {
    "error": "error.type",
    "input_tokens": "gen_ai.usage.input_tokens",
    "method": "http.request.method",
    "model": "gen_ai.request.model",
    "output_tokens": "gen_ai.usage.output_tokens",
    "path": "url.path",
    "route": "http.route",
    "status": "http.response.status_code",
}
"""Attributes that OpenTelemetry has names for; the others are `ttcl.*`."""


class Span:
    """A step of the work. This one, which stands where nothing is traced, does nothing."""

    __slots__ = ()
    trace_id: str | None = None

    def set(self, **attributes: Value) -> None:
        """Attributes; those that are None are left out."""

    def spent(self, cost: Cost) -> None:
        """Calls and tokens of this step."""

    def failed(self, kind: str) -> None:
        """Mark the step as failed. `kind`: a type or a status, never a message."""

    def end(self, error: BaseException | None = None) -> None:
        """For a span that is not used as a context manager; twice is harmless."""

    def headers(self) -> dict[str, str]:
        """What makes another service's spans children of this one (`traceparent`)."""
        return {}

    def child(self, name: str, attributes: Mapping[str, Value], *, kind: str = "INTERNAL") -> Span:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        pass


class Tracer:
    """Begins traces. This one begins none."""

    def request(self, name: str, headers: Mapping[str, str], **attributes: Value) -> Span:
        """The root of a request; its parent is the client's span where `headers` name one."""
        return UNTRACED

    def work(self, name: str, origin: Mapping[str, str], **attributes: Value) -> Span:
        """The root of work in the background, linked to the span that `origin` names, if any."""
        return UNTRACED

    async def close(self) -> None:
        """Sends what is left, within a bounded time."""


UNTRACED = Span()
NO_TRACES = Tracer()
_current: ContextVar[Span] = ContextVar("span", default=UNTRACED)


def current() -> Span:
    return _current.get()


def traced() -> bool:
    """Whether there is a trace here, recorded or not."""
    return _current.get() is not UNTRACED


def span(name: str, **attributes: Value) -> Span:
    """A step of what is current, as a context manager."""
    return _current.get().child(name, attributes)


def outgoing(name: str, **attributes: Value) -> Span:
    """A call to another service. It never becomes current, and who began it ends it: an open
    answer is closed by another task than the one that asked."""
    return _current.get().child(name, attributes, kind="CLIENT")


def receiver() -> str | None:
    """Where the environment wants traces sent; None: nowhere. Raises `ConfigurationError`."""
    named = [(name, _env(name)) for name in _ENDPOINTS if _env(name)]
    off = _env("OTEL_SDK_DISABLED").lower() == "true" or _env("OTEL_TRACES_EXPORTER") == "none"
    if off or not named:
        return None
    name, url = named[0]
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{name}: must start with http:// or https://")
    protocol = next((_env(each) for each in _PROTOCOLS if _env(each)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: traces are sent as http/protobuf only, not {protocol}"
        )
    return url


def open_tracer() -> Tracer:
    """As the environment has it. Raises `ConfigurationError` where it asks for traces that can't
    be made."""
    if receiver() is None:
        return NO_TRACES
    try:
        # Imported here: whoever wants no traces needs no SDK.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and OpenTelemetry is not installed: "
            "pip install 'ttcl[otel]', or unset it"
        ) from error
    try:
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "ttcl"}))
        # Ended by `close`: at the interpreter's exit, nothing bounds how long it takes.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"an OTEL_ variable can't be used: {error}") from error
    return _Otlp(provider)


def _env(name: str) -> str:
    return os.environ.get(name, "").strip()


class _Otlp(Tracer):
    """Spans are handed to a thread that sends them in batches; what it can't send is dropped, and
    no request waits for it."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.api = trace
        self.propagator = TraceContextTextMapPropagator()
        self._provider = provider
        self._tracer = provider.get_tracer("ttcl")

    def start(self, name: str, attributes: Mapping[str, Value], kind: str, **more: Any) -> Span:
        return _Recorded(
            self,
            self._tracer.start_span(
                name, kind=self.api.SpanKind[kind], attributes=_named(attributes), **more
            ),
        )

    def request(self, name: str, headers: Mapping[str, str], **attributes: Value) -> Span:
        return self.start(name, attributes, "SERVER", context=self._named_by(headers))

    def work(self, name: str, origin: Mapping[str, str], **attributes: Value) -> Span:
        cause = self.api.get_current_span(self._named_by(origin)).get_span_context()
        links = [self.api.Link(cause)] if cause.is_valid else []
        return self.start(name, attributes, "INTERNAL", context=self._named_by({}), links=links)

    def _named_by(self, headers: Mapping[str, str]) -> Context:
        from opentelemetry.context import Context

        # An empty context of our own: nothing that a library left in the thread's is the parent.
        return self.propagator.extract(headers, Context())

    async def close(self) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            try:
                self._provider.shutdown()
            finally:
                with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                    loop.call_soon_threadsafe(done.set)

        # A daemon: one that hangs in a dead connection must not keep the process.
        threading.Thread(target=end, name="traces-end", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await done.wait()


class _Recorded(Span):
    __slots__ = ("_outer", "_span", "_tracer", "trace_id")

    def __init__(self, tracer: _Otlp, span: OtelSpan) -> None:
        self._tracer = tracer
        self._span = span
        self._outer: Span = UNTRACED
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def set(self, **attributes: Value) -> None:
        if self._span.is_recording():
            self._span.set_attributes(_named(attributes))

    def spent(self, cost: Cost) -> None:
        told = bool(cost.tokens)
        self.set(
            calls=cost.calls,
            input_tokens=cost.prompt_tokens if told else None,
            output_tokens=cost.completion_tokens if told else None,
        )

    def failed(self, kind: str) -> None:
        if self._span.is_recording():
            self.set(error=kind)
            self._span.set_status(self._tracer.api.StatusCode.ERROR)

    def end(self, error: BaseException | None = None) -> None:
        if not self._span.is_recording():
            return
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.set(cancelled=True)
        elif error is not None:
            self.failed(type(error).__name__)
        self._span.end()

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._tracer.propagator.inject(carrier, self._tracer.api.set_span_in_context(self._span))
        return carrier

    def child(self, name: str, attributes: Mapping[str, Value], *, kind: str = "INTERNAL") -> Span:
        context = self._tracer.api.set_span_in_context(self._span)
        return self._tracer.start(name, attributes, kind, context=context)

    def __enter__(self) -> Self:
        self._outer = _current.get()
        _current.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Not in another task's context, where it was never current.
        if _current.get() is self:
            _current.set(self._outer)
        self.end(error)


def _named(attributes: Mapping[str, Value]) -> dict[str, Any]:
    return {
        _CONVENTIONS.get(name, f"ttcl.{name}"): value
        for name, value in attributes.items()
        if value is not None
    }
