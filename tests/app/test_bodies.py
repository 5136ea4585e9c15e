"""The bytes of all bodies that a process holds at once: bounded, and let go of whatever way a request ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from app.bodies import FREE_BYTES, Bodies
from app.errors import BodyMemoryError
from app.settings import load_settings
from model.errors import ConfigurationError
from tests.app.processes import SERVE_SMALL, Service, served
from tests.app.serving import PATIENCE, until

BUDGET = 2**20
LARGE = BUDGET
"""Bytes of a body that fits with no other of its size, but for what is free."""
TEXT = json.dumps({"text": "the"}).encode()


def test_what_is_beyond_the_free_bytes_of_each_body_is_counted_together() -> None:
    bodies = Bodies(1000)
    bodies.change(0, FREE_BYTES)
    bodies.change(0, FREE_BYTES + 600)
    bodies.check(0, FREE_BYTES + 400)
    with pytest.raises(BodyMemoryError, match="together would be larger than 1000 bytes"):
        bodies.check(0, FREE_BYTES + 401)
    bodies.change(FREE_BYTES + 600, 0)
    bodies.check(0, FREE_BYTES + 1000)


def test_there_must_be_room_for_the_largest_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRU_MAX_BODY_BYTES", "5000")
    monkeypatch.setenv("PRU_BODY_BUDGET_BYTES", "4999")
    with pytest.raises(ConfigurationError, match=r"^PRU_BODY_BUDGET_BYTES: .* PRU_MAX_BODY_BYTES, which is 5000"):
        load_settings()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    settings = {"max_body_bytes": str(LARGE), "body_budget_bytes": str(BUDGET), "deadline_seconds": "2"}
    with served("-c", SERVE_SMALL, **settings) as ready:
        ready.wait_until_ready()
        yield ready


def head(length: int | None) -> bytes:
    """Of a request whose body has a length, or comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode()


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)


def answer(connection: socket.socket) -> bytes:
    """All of an answer after which the connection is closed."""
    found = b""
    with suppress(ConnectionResetError):  # What was not read of a body closes it so.
        while more := connection.recv(2**16):
            found += more
    return found


def is_full(service: Service) -> bool:
    """Whether another large body would be refused: it is not sent before the service wants it."""
    with connect(service) as connection:
        connection.sendall(head(LARGE).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        status = connection.recv(2**16).split(b" ")[1]
        assert status in {b"100", b"503"}
        return status == b"503"


def test_a_body_for_which_there_is_no_room_is_503_when_it_is_announced_and_small_ones_are_answered(
    service: Service,
) -> None:
    with connect(service) as unfinished, connect(service) as other:
        unfinished.sendall(head(LARGE) + b" " * (LARGE - 1))
        until(lambda: is_full(service))
        other.sendall(head(LARGE))
        refused = answer(other)
        fields, _, body = refused.lower().partition(b"\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1" in fields
        assert b"\r\nconnection: close" in fields
        assert json.loads(body)["detail"].startswith("the bodies of all requests together would be larger than 1048576")
        assert service.ask("/predict", text="the").status_code == 200
    until(lambda: not is_full(service))


def test_a_body_that_is_not_announced_is_503_when_there_is_no_room_any_more(service: Service) -> None:
    with connect(service) as unfinished, connect(service) as other:
        unfinished.sendall(head(LARGE) + b" " * (LARGE - 1))
        until(lambda: is_full(service))
        other.sendall(head(None))
        with suppress(ConnectionError):
            for _ in range(16):
                other.sendall(b"10000\r\n" + b" " * 2**16 + b"\r\n")
        assert answer(other).startswith(b"HTTP/1.1 503 ")
    until(lambda: not is_full(service))


def finish(connection: socket.socket) -> None:
    connection.sendall(b" " * (LARGE - len(TEXT) - 1) + TEXT + b" ")
    assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")


def spoil(connection: socket.socket) -> None:
    connection.sendall(b"x" * LARGE)
    assert connection.recv(2**16).startswith(b"HTTP/1.1 400 ")


def leave(connection: socket.socket) -> None:
    connection.sendall(b" " * (LARGE - 1))
    connection.close()


def wait(connection: socket.socket) -> None:
    connection.sendall(b" " * (LARGE - 1))
    assert connection.recv(2**16).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("end", [finish, spoil, leave, wait])
def test_a_body_is_let_go_of_whatever_way_its_request_ends(
    service: Service, end: Callable[[socket.socket], None]
) -> None:
    with connect(service) as connection:
        connection.sendall(head(LARGE))
        end(connection)
        until(lambda: not is_full(service))
