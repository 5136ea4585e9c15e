"""A span for every request, probes aside, around all that the service does for it.

Boundary: plain ASGI, outermost, and not there at all where nothing is traced. What is done meanwhile finds its trace in
`app.tracing.current`. A request is known by its method, its route's template, its status and the name of its key.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware import METHODS, PROBES, route_of
from app.tracing.current import TRACE, Value
from app.tracing.spans import Tracing

SWITCHING_PROTOCOLS, FORBIDDEN = 101, 403
OTHER = "_OTHER"
"""OpenTelemetry's word for methods that HTTP does not know."""


class TracingMiddleware:
    """Traces what `app` answers."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace one request, or all of one WebSocket."""
        # Set where nothing is traced too: a pipelined request begins in the context of the one before it.
        token = TRACE.set(None)
        try:
            if scope["type"] == "lifespan" or scope["path"].startswith(PROBES):
                await self._app(scope, receive, send)
            else:
                await self._trace(scope, receive, send)
        finally:
            TRACE.reset(token)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method", "GET")  # A WebSocket begins with a GET.
        method = method if method in METHODS else OTHER
        parents = [value for name, value in scope["headers"] if name == b"traceparent"]
        span = self._tracing.begin(method, scope.get("scheme", "http"), parents)
        TRACE.set(span)

        async def watched(message: Message) -> None:
            if "status" in message:
                span.status = message["status"]
            elif message["type"] == "websocket.accept":
                span.status = SWITCHING_PROTOCOLS
            elif message["type"] == "websocket.close" and span.status is None:
                span.status = FORBIDDEN
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            attributes: dict[str, Value] = {}
            route = route_of(scope)
            if route is not None:
                attributes["http.route"] = route
            if "key" in scope.get("state", {}):
                attributes["pru.key"] = scope["state"]["key"]
            span.answered(f"{method} {route}" if route else method, attributes)
