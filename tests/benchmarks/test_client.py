"""The benchmarks' own HTTP client: it reads an answer to its end and no further, and takes nothing but 200."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.client import Connection, StatusError, get, post

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n"


@contextmanager
def answering(*parts: bytes) -> Iterator[Connection]:
    """A connection whose every request is answered with these parts, each sent by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while peer.recv(1 << 16):
                    for part in parts:
                        peer.sendall(part)

        server = threading.Thread(target=serve)
        server.start()
        with Connection(listener.getsockname()[1]) as connection:
            yield connection
        server.join()


def test_requests_are_what_http_asks_for() -> None:
    assert get("/model") == b"GET /model HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert post("/predict", text="a", k=2) == (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n"
        b'{"text": "a", "k": 2}'
    )


def test_answers_in_pieces_are_read_to_their_end_one_after_another() -> None:
    with answering(OK[:20], OK[20:-2], OK[-2:] + b'{"a"', b":1}") as connection:
        assert connection.ask(get("/")) == b'{"a":1}'
        assert connection.ask(get("/")) == b'{"a":1}'


def test_any_other_status_is_refused_with_what_the_server_said() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nwait"
    with answering(answer) as connection, pytest.raises(StatusError, match="503 Service Unavailable: wait"):
        connection.ask(get("/"))
