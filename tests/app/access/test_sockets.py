"""The door over real sockets: strange bytes, handshakes, bodies of refused requests, connections beyond the limit."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.sync.client import connect

from benchmarks.client import Connection, get
from tests.app.access.keys import key_file, make_key
from tests.app.processes import SERVE_SMALL, Service, served
from tests.app.serving import until

ALICE = make_key("alice")


@pytest.fixture(scope="module")
def service() -> Any:
    with served("-c", SERVE_SMALL, keys=key_file(ALICE), max_connections="8") as ready:
        ready.wait_until_ready()
        yield ready


def raw(service: Service, data: bytes) -> bytes:
    """What comes of bytes, until the connection is closed or an answer is there."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
            if b"\r\n\r\n" in answer and b'"request_id"' in answer:
                break
        return answer


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"Bearer " + b"A" * 2**20, b"431"),
        (b"Bearer pru_\0" + b"A" * 42, b"400"),
        (b"Bearer \xff\xfe\x80", b"401"),
        (b"Bearer pru_" + "é".encode() * 20, b"401"),
        (b"Bearer pru_" + b"A" * 43, b"401"),
    ],
    ids=["a megabyte", "NUL", "no text", "letters that are not ASCII", "a guess"],
)
def test_strange_bytes_in_the_field_are_refused_and_the_next_request_is_answered(
    service: Service, value: bytes, status: bytes
) -> None:
    head = b"GET /model HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
    try:
        answer = raw(service, head + value + b"\r\n\r\n")
    except ConnectionResetError:  # The refusal crossed what was still being sent.
        assert status == b"431"
    else:
        assert answer.startswith(b"HTTP/1.1 " + status)
    assert raw(service, head + b"Bearer " + ALICE.text.encode() + b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def handshake(service: Service, *fields: bytes) -> bytes:
    """The first line of the answer to a WebSocket's handshake over a real socket."""
    head = [
        b"GET /sessions/x/stream HTTP/1.1", b"Host: 127.0.0.1:%d" % service.port, b"Connection: Upgrade",
        b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", *fields,
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join([*head, b"", b""]))
        return connection.recv(1 << 16).partition(b"\r\n")[0]


def test_a_handshake_over_a_real_socket_is_refused_or_taken_for_the_same_reasons(service: Service) -> None:
    key = b"Authorization: Bearer " + ALICE.text.encode()
    protocols = b"Sec-WebSocket-Protocol: pru, pru.key." + ALICE.text.encode()
    own = b"Origin: http://127.0.0.1:%d" % service.port
    assert handshake(service) == b"HTTP/1.1 401 Unauthorized"
    assert handshake(service, key, key) == b"HTTP/1.1 401 Unauthorized"
    assert handshake(service, protocols, key) == b"HTTP/1.1 401 Unauthorized"
    assert handshake(service, b"Sec-WebSocket-Protocol: pru, pru.key.\xff") == b"HTTP/1.1 400 Bad Request"
    assert handshake(service, protocols, b"Origin: https://evil.example") == b"HTTP/1.1 403 Forbidden"
    assert handshake(service, protocols, b"Origin: http://[::1") == b"HTTP/1.1 403 Forbidden"
    assert handshake(service, protocols, own, b"Origin: https://evil.example") == b"HTTP/1.1 400 Bad Request"
    for fields in ([key], [protocols], [protocols, own]):
        assert handshake(service, *fields) == b"HTTP/1.1 101 Switching Protocols"


def test_the_body_of_a_refused_request_is_not_the_next_request(service: Service) -> None:
    inner = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner)
    answer = raw(service, head + inner)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 401")


def test_a_connection_serves_on_after_a_large_body_without_a_key(service: Service) -> None:
    with httpx2.Client(base_url=service.url) as client:
        assert client.post("/predict", json={"text": "x" * 2_000_000}).status_code == 401
        assert client.post("/predict", json={"text": "the"}, headers=ALICE.headers).status_code == 200


def test_compressed_bodies_are_refused_and_never_inflated(service: Service) -> None:
    for coding in ("gzip", "br", "deflate, gzip"):
        headers = {**ALICE.headers, "Content-Encoding": coding, "Content-Type": "application/json"}
        answer = httpx2.post(f"{service.url}/predict", content=b"\x1f\x8b" * 1000, headers=headers)
        assert answer.status_code == 415


@pytest.mark.parametrize("size", [1_000, 10_000_000])
def test_compressed_frames_are_not_spoken_and_never_inflated(service: Service, size: int) -> None:
    headers = {"Content-Type": "application/json", **ALICE.headers}
    session = httpx2.post(f"{service.url}/sessions", json={}, headers=headers).json()["session_id"]
    url = f"ws://127.0.0.1:{service.port}/sessions/{session}/stream"
    with connect(url, compression="deflate", additional_headers=ALICE.headers) as talker:
        assert talker.response is not None
        assert "Sec-WebSocket-Extensions" not in talker.response.headers
        # As if it had been agreed on.
        talker.protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
        talker.send(json.dumps({"id": 1, "type": "append", "text": "the " * (size // 4)}))
        with pytest.raises(ConnectionClosedError) as closed:
            talker.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002
    assert httpx2.get(f"{service.url}/sessions/{session}", headers=ALICE.headers).json()["position"] == 0


def test_connections_beyond_the_limit_are_refused_and_those_within_it_are_not(service: Service) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(Connection(service.port)) for _ in range(8)]
        for connection in held:
            assert connection.ask(get("/health/live")) == b'{"status":"live"}'
        beyond = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
        answer = beyond.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1\r\n" in answer.lower()
        assert held[0].ask(get("/health/live")) == b'{"status":"live"}'
    until(lambda: httpx2.get(f"{service.url}/health/live").status_code == 200)


def test_no_key_is_in_what_the_process_shows_or_says(service: Service) -> None:
    httpx2.get(f"{service.url}/model", headers=ALICE.headers)
    shown = Path(f"/proc/{service.process.pid}/cmdline").read_bytes()
    assert ALICE.text.encode() not in shown
    assert ALICE.text not in json.dumps(service.lines) + "".join(service.said)
