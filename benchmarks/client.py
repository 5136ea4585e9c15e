"""One keep-alive connection to a server on this machine, with as little work of its own as can be.

Boundary: requests and bodies as bytes. A request is written before it is timed, and of an answer no more is read than
where it ends, so that what is timed is the server and the system's sockets.
"""

from __future__ import annotations

import json
import re
import socket
from types import TracebackType
from typing import Any

TIMEOUT = 60.0
_OK = re.compile(rb"HTTP/1\.1 200 ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class StatusError(Exception):
    """An answer other than 200."""


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, **fields: Any) -> bytes:
    """A POST request of fields as JSON."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Connection:
    """A context that holds the connection open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The body of the answer; `StatusError` where it is not 200."""
        self._socket.sendall(request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        head, body = answer[: end + 2], answer[end + 4 :]
        length = _LENGTH.search(head)
        if length is None:
            raise StatusError(f"an answer without a length: {head[:80]!r}")
        while len(body) < int(length[1]):
            body += self._receive()
        if not _OK.match(head):
            raise StatusError(f"answered {head.splitlines()[0].decode()}: {body[:200].decode(errors='replace')}")
        return body

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 16)
        if not received:
            raise StatusError("the server closed the connection")
        return received
