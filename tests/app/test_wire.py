"""What a serving process does with bytes on its socket that no well-behaved client sends."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterable, Iterator

import pytest

from app.server import GRACE_SECONDS
from tests.app.processes import SERVE_SLOWLY, Service, served, served_slowly
from tests.app.serving import PATIENCE, until

BODY = b'{"text": "the", "k": 1}'
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A serving process with default limits."""
    with served_slowly(0) as ready:
        ready.wait_until_ready()
        yield ready


def send(service: Service, parts: Iterable[bytes]) -> bytes:
    """What the process answers until it closes the connection, whether or not it takes all parts."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while data := connection.recv(MEGABYTE):
                answer += data
        except ConnectionResetError:
            pass
    return answer


def push(connection: socket.socket, parts: Iterable[bytes]) -> None:
    """Send on and on, whatever is answered."""
    for part in parts:
        connection.sendall(part)
        time.sleep(0.05)


def problem(answer: bytes, status: int) -> dict[str, object]:
    """The problem document of a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"content-type: application/problem+json" in head.lower(), answer[:400]
    document: dict[str, object] = json.loads(body)
    assert document["status"] == status
    assert document["detail"]
    return document


def chunked(parts: Iterable[bytes]) -> Iterator[bytes]:
    """A request whose body comes in chunks and does not say how long it is."""
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for part in parts:
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


def test_requests_sent_at_once_are_answered_in_their_order(service: Service) -> None:
    kept = HEAD.replace(b"Connection: close\r\n", b"")
    requests = [
        kept + b"X-Request-Id: %d\r\nContent-Length: %d\r\n\r\n%s" % (number, len(BODY), BODY) for number in range(20)
    ]
    answer = send(service, [b"".join([*requests, LIVE])])
    assert answer.count(b"HTTP/1.1 200 OK") == 21
    places = [answer.index(b"x-request-id: %d\r\n" % number) for number in range(20)]
    assert places == sorted(places)
    assert answer.endswith(b'{"status":"live"}')


def test_a_body_in_chunks_is_read(service: Service) -> None:
    answer = send(service, chunked(BODY[i : i + 3] for i in range(0, len(BODY), 3)))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["token_count"] == 1


def test_a_body_in_chunks_without_end_is_413_as_soon_as_it_is_too_large(service: Service) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += MEGABYTE
            yield b"a" * MEGABYTE

    assert "larger than 4194304 bytes" in str(problem(send(service, chunked(endless())), 413)["detail"])
    assert sent < 100 * MEGABYTE


def test_a_body_announced_as_too_large_is_413_before_any_of_it_is_sent(service: Service) -> None:
    for expectation in (b"", b"Expect: 100-continue\r\n"):
        answer = send(service, [HEAD + expectation + b"Content-Length: 5000000\r\n\r\n"])
        assert "larger than 4194304 bytes" in str(problem(answer, 413)["detail"])


def test_a_client_that_waits_to_be_told_to_go_on_is_told(service: Service) -> None:
    answer = send(service, [HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY])
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_line",
    [b"GET /health/live HTTP/1.0\r\n\r\n", b"GET http://elsewhere/health/live HTTP/1.1\r\nConnection: close\r\n\r\n"],
    ids=["http-1.0", "absolute"],
)
def test_older_and_longer_forms_of_a_request_are_answered(service: Service, request_line: bytes) -> None:
    assert send(service, [request_line]).endswith(b'\r\n\r\n{"status":"live"}')


def test_a_web_socket_is_refused_where_there_is_none(service: Service) -> None:
    upgrade = b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    answer = send(service, [LIVE.replace(b"close\r\n\r\n", b"Upgrade, close\r\n") + upgrade])
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert send(service, [LIVE]).endswith(b'{"status":"live"}')


@pytest.mark.parametrize(
    "junk",
    [
        b"Quetzalcoatl\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"FLY /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabcde\r\n0\r\n\r\n",
        HEAD + b"X-Strange: \0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=[
        "words",
        "tls",
        "http-2",
        "method",
        "negative",
        "enormous",
        "two-lengths",
        "chunk",
        "nul",
        "path",
        "long-path",
    ],
)
def test_what_is_not_http_is_refused_and_leaves_the_service_answering(service: Service, junk: bytes) -> None:
    answer = send(service, [junk])
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 414 ", b"HTTP/1.1 431 "))
    assert b"connection: close" in answer.lower()
    assert send(service, [LIVE]).endswith(b'{"status":"live"}')


def test_what_is_not_http_is_told_so_in_a_problem_document_whose_id_the_log_has(service: Service) -> None:
    document = problem(send(service, [b"Quetzalcoatl\r\n\r\n"]), 400)
    assert "HTTP" in str(document["detail"])
    until(lambda: any(line["request_id"] == document["request_id"] for line in service.events("refused")))


def test_a_header_of_100_kilobytes_is_431(service: Service) -> None:
    long = LIVE.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert "header" in str(problem(send(service, [long]), 431)["detail"])


@pytest.mark.parametrize("separately", [False, True], ids=["with-its-head", "after-its-head"])
def test_a_large_body_is_no_large_header(service: Service, separately: bool) -> None:
    body = b'{"text": "' + b" " * 400_000 + b'", "k": 1}'
    parts = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body]
    answer = send(service, parts if separately else [b"".join(parts)])
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_a_body_in_tiny_chunks_is_no_large_header(service: Service) -> None:
    body = b'{"text": "' + b" " * 50_000 + b'", "k": 1}'
    answer = send(service, [b"".join(chunked(bytes([byte]) for byte in body))])
    assert answer.startswith(b"HTTP/1.1 200 "), answer


@pytest.mark.parametrize(
    "opening",
    [b"GET /health/live HTTP/1.1\r\nHost: x\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"],
    ids=["headers", "trailers"],
)
@pytest.mark.parametrize("piece", [b"a" * MEGABYTE, b"a\r\nX-Many: " * 100_000], ids=["one", "many"])
def test_headers_without_end_are_not_taken_into_memory(service: Service, opening: bytes, piece: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(opening + b"X-Many: ")
        # The buffers of a connection take a few megabytes, whatever the process does.
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            push(connection, [piece] * 20)
    assert send(service, [LIVE]).endswith(b'{"status":"live"}')


def test_a_body_that_stops_coming_is_given_up_at_the_deadline_even_where_the_process_is_to_end() -> None:
    half = HEAD + b"Content-Length: 100\r\n\r\n" + b'{"text": '
    with served("-c", SERVE_SLOWLY, "0", deadline_seconds="0.5") as service:
        service.wait_until_ready()
        problem(send(service, [half]), 408)
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
            connection.sendall(half)
            time.sleep(0.1)
            service.process.send_signal(signal.SIGTERM)
            # What the server waits beyond the deadline is for answers, and not for requests.
            assert service.process.wait(GRACE_SECONDS - 1) == 0
            problem(connection.recv(MEGABYTE), 408)
        until(lambda: bool(service.events("stopped")))
