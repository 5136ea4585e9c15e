"""What a connection brings before it is a request: uvicorn's protocol with limits, and with the service's refusals.

Boundary: the bytes of one connection, by overriding what uvicorn leaves open. Requests that it takes are answered by
the application; only what never becomes one is answered here.
"""

from __future__ import annotations

import asyncio
import math
import socket
import uuid
from http import HTTPStatus

from fastapi import FastAPI
from structlog.typing import FilteringBoundLogger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.access.headers import secured
from app.problems import problem

HEAD_BYTES = 64 * 2**10
"""Most bytes of a request's target and header fields together."""
_SEPARATORS = len(": \r\n")

NOT_HTTP = "what was sent is no HTTP/1.1 request; mend the client, and speak no TLS to this port"
TOO_LARGE = f"the request's target and header fields have more than {HEAD_BYTES} bytes; send less in them"
TOO_MANY = "there are as many connections as may be at once; close those that are not used, or try again later"
TOO_SLOW = "no request with all of its header fields came within {:g} seconds; send them at once"


class Protocol(HttpToolsProtocol):
    """Refuses what never becomes a request with a problem document, and leaves a client that takes no answer.

    More than `HEAD_BYTES` of head are refused with 431, what is not HTTP with 400, and a head that is not there by the
    deadline with 408, where uvicorn would wait without end.

    A connection beyond `PRU_MAX_CONNECTIONS`, WebSockets counted, is refused with 503 before anything is read from it.

    The parser keeps the pieces of a header field, or of a trailer, until it has the whole of it, however long that is.
    So bytes are counted for as long as it hands on nothing of a message.
    """

    _kept = 0
    """Bytes that came since the parser last handed something on, or a few less."""
    _head_due: asyncio.TimerHandle | None = None
    """Runs while a request is awaited, and not between those of a client that sends each head at once."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        # The system gives up a connection of which the other side takes nothing for so long, closed already or not.
        milliseconds = math.ceil(self._deadline * 1000)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        if len(self.connections) > self._service.state.settings.max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY)
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_awaiting_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse to wait for more once too much of it is kept, or for long."""
        self._kept += len(data)
        super().data_received(data)
        if self._kept > HEAD_BYTES:
            if not self.transport.is_closing():
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)
        elif self._head_due is None and not self._is_answering():
            self._await_head()

    def on_headers_complete(self) -> None:
        """Take the request, unless its head came at once and is too large all the same."""
        self._stop_awaiting_head()
        self._kept = len(self.url) + sum(len(name) + len(value) + _SEPARATORS for name, value in self.headers)
        if self._kept > HEAD_BYTES:
            raise ValueError(TOO_LARGE)  # The parser ends with an error, and uvicorn asks for its answer.
        super().on_headers_complete()
        self._kept = 0

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        super().on_body(body)
        self._kept = 0

    def on_message_complete(self) -> None:
        """Hand on the body's end."""
        super().on_message_complete()
        self._kept = 0

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser cannot parse."""
        if self._kept > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, NOT_HTTP)

    def _is_answering(self) -> bool:
        # uvicorn declares the cycle as if there always were one; before the first request it is None.
        return bool(self.cycle) and not self.cycle.response_complete

    def _await_head(self) -> None:
        # What has become a WebSocket, or was refused, brings no more requests; uvicorn counts the former elsewhere.
        if self in self.connections and not self.transport.is_closing():
            self._head_due = self.loop.call_later(self._deadline, self._refuse_late)

    def _stop_awaiting_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _refuse_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, TOO_SLOW.format(self._deadline))

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        request_id = uuid.uuid4().hex
        response = problem(status, detail, request_id, headers={"Connection": "close", "X-Request-Id": request_id})
        fields = (*self.server_state.default_headers, *secured(response.raw_headers))
        head = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        head += [b"%s: %s" % field for field in fields]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
        logger: FilteringBoundLogger = self._service.state.logger
        # Whoever opens connections by the thousand must not fill the log.
        write = logger.debug if status == HTTPStatus.SERVICE_UNAVAILABLE else logger.info
        write("refused", request_id=request_id, status=status.value)

    @property
    def _deadline(self) -> float:
        seconds: float = self._service.state.settings.deadline_seconds
        return seconds

    @property
    def _service(self) -> FastAPI:
        assert isinstance(self.config.app, FastAPI)
        return self.config.app
