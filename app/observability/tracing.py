"""Optional OpenTelemetry traces: what the loop did for a request, and how long each step took.

Nothing is traced unless the environment names a receiver (OTEL_EXPORTER_OTLP_ENDPOINT). Spans hang
on the one that is current, so only roots need a `Tracer`; where there is no root, every span is
OpenTelemetry's `INVALID_SPAN`, which does nothing, and the SDK is not imported.

Names, numbers and ids are all that a span carries: no prompt, no answer, no key, and of an error
only its type, since its message may quote what it is about.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, create_key, detach, get_value, set_value
from opentelemetry.trace import INVALID_SPAN as INVALID_SPAN
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace import Span as Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.domain.trajectory import Cost
from app.exceptions import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

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


_TRACER = create_key("ttcl-tracer")
"""Where a context keeps the tracer of its root: one process may have several applications."""
_PROPAGATOR = TraceContextTextMapPropagator()


def traced() -> bool:
    """Whether there is a trace here, recorded or not."""
    return _tracer() is not None


def current() -> Span:
    return trace.get_current_span() if traced() else INVALID_SPAN


def span(name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """A step of what is current, and current itself until its end."""
    return _step(name, attributes)


def outgoing(name: str, **attributes: Value) -> Span:
    """A call to another service. It never becomes current, and who began it ends it (`end`): an
    open answer is closed by another task than the one that asked."""
    return _started(name, attributes, kind=SpanKind.CLIENT)


def set_attributes(of: Span, **attributes: Value) -> None:
    """Those that are None are left out."""
    if of.is_recording():
        of.set_attributes(_named(attributes))


def set_cost(of: Span, cost: Cost) -> None:
    """Calls and tokens of this step."""
    told = bool(cost.tokens)
    set_attributes(
        of,
        calls=cost.calls,
        input_tokens=cost.prompt_tokens if told else None,
        output_tokens=cost.completion_tokens if told else None,
    )


def set_failed(of: Span, kind: str) -> None:
    """Marks the step as failed. `kind`: a type or a status, never a message."""
    if of.is_recording():
        set_attributes(of, error=kind)
        of.set_status(StatusCode.ERROR)


def end(of: Span, error: BaseException | None = None) -> None:
    """Twice is harmless."""
    if not of.is_recording():
        return
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        set_attributes(of, cancelled=True)
    elif error is not None:
        set_failed(of, type(error).__name__)
    of.end()


def trace_id(of: Span) -> str:
    return trace.format_trace_id(of.get_span_context().trace_id)


def trace_headers(of: Span) -> dict[str, str]:
    """What makes another service's spans children of this one (`traceparent`)."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(of))
    return carrier


class Tracer:
    """Begins traces, which a thread of the provider's sends in batches; what it can't send is
    dropped, and no request waits for it. Without a provider it begins none."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider

    def request(
        self, name: str, headers: Mapping[str, str], **attributes: Value
    ) -> AbstractContextManager[Span]:
        """The root of a request; its parent is the client's span where `headers` name one."""
        return self._root(name, attributes, _named_by(headers), kind=SpanKind.SERVER)

    def work(
        self, name: str, origin: Mapping[str, str], **attributes: Value
    ) -> AbstractContextManager[Span]:
        """The root of work in the background, linked to the span that `origin` names, if any."""
        cause = trace.get_current_span(_named_by(origin)).get_span_context()
        links = [Link(cause)] if cause.is_valid else []
        return self._root(name, attributes, Context(), links=links)

    @contextmanager
    def _root(
        self, name: str, attributes: Mapping[str, Value], parent: Context, **more: Any
    ) -> Iterator[Span]:
        if self._provider is None:
            yield INVALID_SPAN
            return
        token = attach(set_value(_TRACER, self._provider.get_tracer("ttcl"), parent))
        try:
            with _step(name, attributes, **more) as root:
                yield root
        finally:
            detach(token)

    async def close(self) -> None:
        """Sends what is left, within a bounded time."""
        provider = self._provider
        if provider is None:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            try:
                provider.shutdown()
            finally:
                with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                    loop.call_soon_threadsafe(done.set)

        # A daemon: one that hangs in a dead connection must not keep the process.
        threading.Thread(target=shut_down, name="traces-end", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await done.wait()


NO_TRACES = Tracer()


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
    return Tracer(provider)


def _env(name: str) -> str:
    return os.environ.get(name, "").strip()


def _tracer() -> trace.Tracer | None:
    found: trace.Tracer | None = get_value(_TRACER)  # type: ignore[assignment]
    return found


def _started(name: str, attributes: Mapping[str, Value], **more: Any) -> Span:
    tracer = _tracer()
    if tracer is None:
        return INVALID_SPAN
    return tracer.start_span(name, attributes=_named(attributes), **more)


@contextmanager
def _step(name: str, attributes: Mapping[str, Value], **more: Any) -> Iterator[Span]:
    step = _started(name, attributes, **more)
    if step is INVALID_SPAN:
        yield step
        return
    # Without OpenTelemetry's record of an exception, whose message may quote.
    with trace.use_span(step, record_exception=False, set_status_on_exception=False):
        try:
            yield step
        except BaseException as error:
            end(step, error)
            raise
        end(step)


def _named_by(headers: Mapping[str, str]) -> Context:
    # An empty context of our own: nothing that a library left in the thread's is the parent.
    return _PROPAGATOR.extract(headers, Context())


def _named(attributes: Mapping[str, Value]) -> dict[str, Any]:
    return {
        _CONVENTIONS.get(name, f"ttcl.{name}"): value
        for name, value in attributes.items()
        if value is not None
    }
