"""Spans of OpenTelemetry, sent as OTLP over HTTP by a thread of their own.

Boundary: the SDK. Endpoint, headers, service name, sampler, queue and timeouts are its variables (`OTEL_…`), and it
reads them. Whatever happens to what is sent, a request notices nothing: finished spans go into a queue that drops
what it has no room for, and a stop waits `FLUSH_SECONDS` at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span as LibrarySpan
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing.current import Trace, Value
from model.errors import ConfigurationError

FLUSH_SECONDS = 2.0
"""How long a stop waits for the last spans to be sent."""
MOST_PARTS = 128
"""Spans within one; the others are counted. A long continuation reads a thousand times."""
NAME = "pru"

_PROPAGATOR = TraceContextTextMapPropagator()
_OK, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)


class _Session(requests.Session):
    """Reads nothing of an answer but its head: its body, which may have no end, says nothing that is needed."""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        response = super().request(*arguments, **{**options, "stream": True})
        response.close()
        return response


def otlp_exporter() -> SpanExporter:
    """What sends spans to where the environment says."""
    return OTLPSpanExporter(session=_Session())


class Tracing:
    """Traces requests between `open` and `close`: one process's, opened after it was forked."""

    def __init__(self, make_exporter: Callable[[], SpanExporter] = otlp_exporter) -> None:
        self._make_exporter = make_exporter
        self._provider: TracerProvider
        self.tracer: Tracer
        self.processor: BatchSpanProcessor
        self.scope = InstrumentationScope(NAME)

    def open(self, version: str) -> None:
        """Start the thread that sends; `ConfigurationError` where a variable is refused."""
        try:
            self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
            self.processor = BatchSpanProcessor(self._make_exporter())
        except ValueError as error:
            raise ConfigurationError(f"tracing cannot begin: {error}; correct the variables OTEL_…") from None
        self._provider.add_span_processor(self.processor)
        self.tracer = self._provider.get_tracer(NAME, version)

    def close(self) -> None:
        """Send what is left, for `FLUSH_SECONDS` at most."""
        # The library would wait for half a minute.
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)

    @property
    def resource(self) -> Resource:
        """What every span says of this service."""
        return self._provider.resource

    def new_span_id(self) -> int:
        """An id for a span."""
        return self._provider.id_generator.generate_span_id()

    def begin(self, method: str, scheme: str, traceparents: Sequence[bytes]) -> Span:
        """A request that begins, as a part of its client's trace where it names one."""
        context = Context()
        if len(traceparents) == 1:
            # Nothing else of a client's context is taken: `tracestate` and `baggage` hold whatever it likes.
            context = _PROPAGATOR.extract({"traceparent": traceparents[0].decode("latin-1")}, context)
        attributes: dict[str, Value] = {"http.request.method": method, "url.scheme": scheme}
        return Span(self, method, context, SpanKind.SERVER, attributes)


class Span(Trace):
    """A request, or a frame of a WebSocket."""

    def __init__(
        self, tracing: Tracing, name: str, context: Context, kind: SpanKind, attributes: dict[str, Value]
    ) -> None:
        self._tracing = tracing
        self._offset = time.time() - perf_counter()
        self._parts = 0
        self._span: LibrarySpan = tracing.tracer.start_span(name, context, kind, attributes)
        self._context = self._span.get_span_context()
        self.is_recorded = self._span.is_recording()
        self.trace_id = format_trace_id(self._context.trace_id)
        self.span_id = format_span_id(self._context.span_id)

    def record(
        self, name: str, began: float, ended: float, attributes: dict[str, Value], *, failed: bool = False
    ) -> None:
        """Note a part that is over."""
        if not self._has_room():
            return
        own = self._context
        # Finished as it is made, so it needs nothing of what the library does for spans under way, which takes longer
        # than some of these parts.
        self._tracing.processor.on_end(
            ReadableSpan(
                name,
                SpanContext(own.trace_id, self._tracing.new_span_id(), False, own.trace_flags),
                own,
                self._tracing.resource,
                attributes,
                status=_FAILED if failed else _OK,
                start_time=self._nanoseconds(began),
                end_time=self._nanoseconds(ended),
                instrumentation_scope=self._tracing.scope,
            )
        )

    def begin(self, name: str) -> Span:
        """A part that begins."""
        return Span(self._tracing, name, set_span_in_context(self._span, Context()), SpanKind.INTERNAL, {})

    def answered(self, name: str, attributes: dict[str, Value]) -> None:
        """Say which request it was, now that it is known, and end."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        self.end()

    def end(self) -> None:
        """It is over."""
        if self.status is not None:
            self._span.set_attribute("http.response.status_code", self.status)
            if self.status >= 500:
                self._span.set_attribute("error.type", str(self.status))
                self._span.set_status(_FAILED)
        if self._parts > MOST_PARTS:
            self._span.set_attribute("pru.spans.left_out", self._parts - MOST_PARTS)
        self._span.end()

    def _has_room(self) -> bool:
        self._parts += 1
        return self._parts <= MOST_PARTS

    def _nanoseconds(self, seconds: float) -> int:
        return int((seconds + self._offset) * 1e9)


def _resource(version: str) -> Resource:
    """The environment's, with a name and a version where it has none."""
    named = Resource.create({SERVICE_VERSION: version})
    if str(named.attributes[SERVICE_NAME]).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: NAME}))
    return named
