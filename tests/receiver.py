"""An OpenTelemetry collector: OTLP over HTTP on a real port, with a memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Received:
    name: str
    id: str
    parent: str
    """Empty for a root."""
    trace: str
    kind: str
    failed: bool
    said: str
    """The status's message."""
    events: int
    links: tuple[str, ...]
    """Ids of the linked spans."""
    attributes: dict[str, Any]
    resource: dict[str, Any]
    nanoseconds: tuple[int, int]


class Receiver:
    """Collects what is exported to `url`; `hang` leaves every export without an answer."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.hang = False
        self.asked = threading.Event()
        self._released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked.set()
                if receiver.hang:
                    receiver._released.wait(60)
                assert self.path == "/v1/traces"
                receiver._take(body, dict(self.headers.items()))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def until(self, condition: Callable[[], Any], within: float = 20.0) -> Any:
        """What `condition` returns once that is true."""
        deadline = time.monotonic() + within
        while not (found := condition()):
            assert time.monotonic() < deadline, sorted(span.name for span in self.spans)
            time.sleep(0.02)
        return found

    def trace(self, root: str, **attributes: Any) -> Trace:
        """The whole trace of one root, which comes after all that it waited for."""

        def found() -> Trace | None:
            for span in self.spans:
                fits = all(span.attributes.get(f"ttcl.{k}") == v for k, v in attributes.items())
                if span.name == root and fits:
                    return Trace([each for each in self.spans if each.trace == span.trace], span)
            return None

        return self.until(found)  # type: ignore[no-any-return]

    def _take(self, body: bytes, headers: dict[str, str]) -> None:
        batch = ExportTraceServiceRequest.FromString(body)
        self.raw.append(body)
        self.headers.append(headers)
        for resource in batch.resource_spans:
            described = _plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_received(span, described) for span in scope.spans]


@dataclass(frozen=True)
class Trace:
    spans: list[Received]
    root: Received

    def one(self, name: str) -> Received:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def all(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def tree(self, of: Received | None = None) -> dict[str, Any]:
        """Names of the children of a span (the root), each with its own; equal names as one."""
        top = of or self.root
        return {
            span.name: self.tree(span)
            for span in sorted(self.spans, key=lambda span: span.nanoseconds)
            if span.parent == top.id
        }


def _received(span: WireSpan, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        trace=span.trace_id.hex(),
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        said=span.status.message,
        events=len(span.events),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_plain(span.attributes),
        resource=resource,
        nanoseconds=(span.start_time_unix_nano, span.end_time_unix_nano),
    )


def _plain(attributes: Any) -> dict[str, Any]:
    def value(of: Any) -> Any:
        kind = of.WhichOneof("value")
        found = getattr(of, kind)
        return [value(each) for each in found.values] if kind == "array_value" else found

    return {each.key: value(each.value) for each in attributes}
