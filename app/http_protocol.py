"""What a connection brings before it is a request: uvicorn's protocol with a limit, and with the service's refusals.

Boundary: the bytes of one connection, by overriding what uvicorn leaves open. Requests that it takes are answered by
the application; only what never becomes one is answered here.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus

from fastapi import FastAPI
from structlog.typing import FilteringBoundLogger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.problems import problem

HEAD_BYTES = 64 * 2**10
"""Most bytes of a request's target and header fields together."""
_SEPARATORS = len(": \r\n")

NOT_HTTP = "what was sent is no HTTP/1.1 request; mend the client, and speak no TLS to this port"
TOO_LARGE = f"the request's target and header fields have more than {HEAD_BYTES} bytes; send less in them"


class Protocol(HttpToolsProtocol):
    """Refuses more than `HEAD_BYTES` of head with 431 and what is not HTTP with 400, both as problem documents.

    The parser keeps the pieces of a header field, or of a trailer, until it has the whole of it, however long that is.
    So bytes are counted for as long as it hands on nothing of a message.
    """

    _kept = 0
    """Bytes that came since the parser last handed something on, or a few less."""

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse to wait for more once too much of it is kept."""
        self._kept += len(data)
        super().data_received(data)
        if self._kept > HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """Take the request, unless its head came at once and is too large all the same."""
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
        self._refuse()

    def _refuse(self) -> None:
        if self._kept > HEAD_BYTES:
            status, detail = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE
        else:
            status, detail = HTTPStatus.BAD_REQUEST, NOT_HTTP
        request_id = uuid.uuid4().hex
        response = problem(status, detail, request_id, headers={"Connection": "close", "X-Request-Id": request_id})
        head = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        head += [b"%s: %s" % field for field in (*self.server_state.default_headers, *response.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
        assert isinstance(self.config.app, FastAPI)
        logger: FilteringBoundLogger = self.config.app.state.logger
        logger.info("refused", request_id=request_id, status=status.value)
