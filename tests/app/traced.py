"""Services whose spans are kept, and collectors that take them over a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.tracing.spans import Tracing
from tests.app.serving import serving


@dataclass
class Spans:
    """What a service has exported by the time it stopped."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    @property
    def all(self) -> list[ReadableSpan]:
        """Every span, in the order they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        """Spans of one name."""
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        [span] = self.named(name)
        return span

    def under(self, parent: ReadableSpan) -> list[str]:
        """Names of a span's parts, in the order they began."""
        return [span.name for span in self.all if span.parent and span.parent.span_id == id_of(parent)]


@contextmanager
def tracing(**serving_with: Any) -> Iterator[tuple[TestClient, Spans]]:
    """A ready service; its spans are there once the block is left."""
    spans = Spans()
    with serving(tracing=Tracing(lambda: spans.exporter), **serving_with) as client:
        yield client, spans


def id_of(span: ReadableSpan) -> int:
    """A span's id."""
    assert span.context is not None
    found: int = span.context.span_id
    return found


def trace_of(span: ReadableSpan) -> int:
    """The id of a span's trace."""
    assert span.context is not None
    found: int = span.context.trace_id
    return found


class Collector:
    """Takes OTLP over HTTP and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.heads: list[tuple[str, dict[str, str]]] = []

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        """Everything, parsed."""
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Any]:
        """Every span."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, str]]:
        """What each request says of its sender."""
        return [
            {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for request in self.requests
            for resource in request.resource_spans
        ]


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.heads.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def misbehaving(behave: Callable[[socket.socket], None]) -> Iterator[tuple[list[int], str]]:
    """A collector that does to each connection as `behave` says; what it counts connections in, and its address."""
    taken: list[int] = []
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                taken.append(len(taken))
                kept.append(connection)
                try:
                    behave(connection)
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield taken, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()
            thread.join()
