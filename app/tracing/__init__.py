"""Traces: what a request waited for, as OpenTelemetry's spans, sent where the standard's variables say.

Boundary: `app.tracing.current` is what the rest of the service says of its work, and needs no OpenTelemetry;
`app.tracing.spans` makes and sends the spans, and is imported only where the environment names somewhere to send them.

No span holds anything that a client sent but the ids of its `traceparent`, which are hexadecimal digits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from model.errors import ConfigurationError

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def tracing_of_environment() -> Tracing | None:
    """What traces requests, None where no endpoint is set; `ConfigurationError` where they cannot be sent as asked."""
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return None
    named = next((name for name in PROTOCOLS if os.environ.get(name)), None)
    if named and os.environ[named] != PROTOCOL:
        raise ConfigurationError(f"traces are sent as {PROTOCOL} alone; unset {named}, or set it to that")
    try:
        from app.tracing.spans import Tracing  # noqa: PLC0415 - OpenTelemetry's SDK is for those who trace
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{endpoint} is set and the package that provides {error.name} is missing; pip install '.[traces]', or "
            "unset the variable"
        ) from None
    return Tracing()
