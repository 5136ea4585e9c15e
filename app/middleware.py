"""What every HTTP request passes: its id, the limits on its body, the watch for a client that left, and its log line.

Boundary: plain ASGI, so that a request costs a few function calls and nothing is buffered. Stands around all of the
service's code: whatever escapes that is logged here, without its message, and answered with a problem document.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from time import perf_counter
from typing import NamedTuple

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.access.headers import secured
from app.bodies import Bodies
from app.errors import STATUS, BodyMemoryError, DrainingError
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.problems import failure_detail, problem, problem_of
from model.errors import PRUError

CLIENT_LEFT = 499
"""Logged in place of a status when the client closed the connection before it was answered."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
PROBES = ("/health/", "/metrics")
"""Asked by machines every few seconds: logged at debug level."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware:
    """Wraps the application of one service."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        lifecycle: Lifecycle,
        logger: FilteringBoundLogger,
        metrics: Metrics,
        max_body_bytes: int,
        bodies: Bodies,
        deadline_seconds: float,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._logger = logger
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._bodies = bodies
        self._deadline_seconds = deadline_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        exchange = _Exchange(scope, receive, send, self._max_body_bytes, self._bodies, self._deadline_seconds)
        try:
            await self._answer(scope, exchange)
        finally:
            exchange.close()
            self._log(scope, exchange, perf_counter() - began)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            refusal = self._refusal(scope, exchange)
            await (refusal or self._app)(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.client_left:
                raise
            exchange.task.uncancel()
        except Exception as error:
            self._logger.error("failed", request_id=exchange.request_id, route=route_of(scope), error=error)
            if exchange.status is None:
                await _failure(error, exchange.request_id)(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: Scope, exchange: _Exchange) -> Response | None:
        """The answer to anything but a probe once the service is stopping."""
        try:
            if not scope["path"].startswith("/health/"):
                self._lifecycle.check_taking_requests()
        except DrainingError as error:
            refusal = problem_of(error, exchange.request_id)
            refusal.headers["Connection"] = "close"
            return refusal
        return None

    def _log(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        status = CLIENT_LEFT if exchange.client_left else exchange.status
        self._metrics.answered(method, route, status or 0, seconds)
        # Whoever guesses keys must not fill the log: it hears of them by their number, from `app.access.keyring`.
        quiet = status == HTTPStatus.UNAUTHORIZED or (route is not None and route.startswith(PROBES))
        key = {"key": scope["state"]["key"]} if "key" in scope["state"] else {}
        write = self._logger.debug if quiet else self._logger.info
        write(
            "request",
            request_id=exchange.request_id,
            method=method,
            route=route,
            status=status,
            milliseconds=round(seconds * 1000, 3),
            **key,
        )


class _Exchange:
    """One request and its response: `receive` and `send` as the application sees them."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        max_body_bytes: int,
        bodies: Bodies,
        deadline_seconds: float,
    ) -> None:
        self._head = _read_headers(scope["headers"])
        self.request_id = self._head.request_id
        self.status: int | None = None
        self.client_left = False
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._bodies = bodies
        self._deadline_seconds = deadline_seconds
        self._deadline = asyncio.get_running_loop().time() + deadline_seconds
        self._received = 0
        self._watch: asyncio.Task[None] | None = None
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def receive(self) -> Message:
        """The next message. After the body's end: waits for the client to leave, which also cancels the request."""
        if self._watch is not None:
            await asyncio.shield(self._watch)
            return {"type": "http.disconnect"}
        self._check_size(self._head.content_length)
        if self._head.is_encoded:
            detail = "the body has a Content-Encoding; send it as it is, without one"
            raise _broken_off(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept-Encoding": "identity"})
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body did not come within {self._deadline_seconds:g} seconds; send all of it at once"
            raise _broken_off(HTTPStatus.REQUEST_TIMEOUT, detail) from None
        if message["type"] == "http.request":
            size = self._received + len(message.get("body", b""))
            self._check_size(size)
            self._hold(size)
            if not message.get("more_body", False):
                self._watch = asyncio.create_task(self._wait_until_client_leaves())
        return message

    async def send(self, message: Message) -> None:
        """Send on, with the request id and what every answer has in the response's headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = secured(list(message.get("headers", ())))
            message["headers"] = [*headers, (b"x-request-id", self.request_id.encode("ascii"))]
        await self._send(message)

    def close(self) -> None:
        """Let go of the body, and end the watch."""
        self._hold(0)
        if self._watch is not None:
            self._watch.cancel()

    def _check_size(self, size: int) -> None:
        """Refuse a body that has, or is going to have, as many bytes, where that is too much."""
        if size > self._max_body_bytes:
            detail = f"the body is larger than {self._max_body_bytes} bytes; send less at a time"
            raise _broken_off(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        try:
            self._bodies.check(self._received, size)
        except BodyMemoryError as error:
            # FastAPI would call any other error, where it reads a body, one of parsing it.
            raise _broken_off(STATUS[BodyMemoryError], str(error)) from None

    def _hold(self, size: int) -> None:
        """Hold as many bytes of the body from now on."""
        self._bodies.change(self._received, size)
        self._received = size

    async def _wait_until_client_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.status is None:
            self.client_left = True
            self.task.cancel()


class _Head(NamedTuple):
    """What of a request's header fields matters here."""

    request_id: str
    """Made here where the client sent none or a strange one."""
    content_length: int
    """0 where none is announced."""
    is_encoded: bool


def _read_headers(headers: list[tuple[bytes, bytes]]) -> _Head:
    request_id, length, is_encoded = "", 0, False
    for name, value in headers:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"content-length" and value.isdigit():
            length = int(value[:20])
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            is_encoded = True
    return _Head(request_id or uuid.uuid4().hex, length, is_encoded)


def route_of(scope: Scope) -> str | None:
    """The matched route's template: what was asked for, without the path that a user may have written text into."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def _broken_off(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> HTTPException:
    """A refusal that closes the connection: what is left of the body is not read."""
    return HTTPException(status, detail, {"Connection": "close", **(headers or {})})


def _failure(error: Exception, request_id: str) -> Response:
    if isinstance(error, PRUError):
        return problem_of(error, request_id)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, failure_detail(request_id), request_id)
