"""Clients that vanish, send a byte at a time or take no answer: they are left in time, and nothing of them is left."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import httpx2
import pytest

from tests.app.processes import Service, served
from tests.app.serving import PATIENCE, until

SERVE = """
import asyncio, socket, time
from app import server
from app.settings import load_settings
from tests.app.fakes import NumpyEngine, fake_model

class Counting(server.Server):
    async def on_tick(self, counter):
        self._logger.info("counted", tasks=len(asyncio.all_tasks()))
        return await super().on_tick(counter)

class Narrow(server.Protocol):
    def connection_made(self, transport):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connection_made(transport)

server.Server, server.Protocol = Counting, Narrow
server.run(load_settings(), fake_model(build=lambda size: NumpyEngine(size, before=lambda: time.sleep(0.001))))
"""
"""Serves a small model, logs ten times a second how many tasks there are, and sends as if the network were narrow: a
client of the same machine could otherwise leave megabytes unread before the process notices."""

DEADLINE = 1.0
QUEUE_LIMIT = 23
CLIENTS = 20
DRIP_SECONDS = 0.15
"""Between two bytes of a slow client: far fewer come by the deadline than a request has."""
MEGABYTE = 2**20
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A serving process with a short deadline."""
    settings = {"deadline_seconds": str(DEADLINE), "queue_limit": str(QUEUE_LIMIT)}
    with served("-c", SERVE, **settings) as ready:
        ready.wait_until_ready()
        # Whatever is made once, at the first use of something, is there before anything is counted.
        assert ready.ask("/perplexity", text="harbour " * 1000, return_tokens=True).status_code == 200
        with connect(ready) as connection:
            begin_to_talk(connection, create(ready, 1)[0], 2)
            connection.recv(1)
        yield ready


class Held(NamedTuple):
    """What a process holds for its clients."""

    files: int
    threads: int
    tasks: int


def held(service: Service) -> Held:
    """What the process holds now."""
    count = len(service.events("counted"))
    until(lambda: len(service.events("counted")) > count + 1)
    return Held(service.open_files(), service.threads(), service.events("counted")[-1]["tasks"])


def connect(service: Service) -> socket.socket:
    """A connection that takes little before it is read from."""
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", service.port))
    return connection


def request(path: str, **fields: object) -> bytes:
    """A POST."""
    body = json.dumps(fields).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def frame(**fields: object) -> bytes:
    """A WebSocket message of at most 125 bytes, masked with zeros."""
    body = json.dumps(fields).encode()
    return bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body


def create(service: Service, count: int = CLIENTS) -> list[str]:
    """New sessions of one word."""
    with client(service) as asking:
        return [asking.post("/sessions", json={"text": "the"}).json()["session_id"] for _ in range(count)]


def append(service: Service, sessions: list[str]) -> list[int]:
    """Where sessions stand after another word."""
    with client(service) as asking:
        answers = [asking.post(f"/sessions/{session_id}/append", json={"text": "harbour"}) for session_id in sessions]
    return [answer.json()["position"] for answer in answers]


def client(service: Service) -> httpx2.Client:
    """A client that reads what it asks for."""
    return httpx2.Client(base_url=service.url, timeout=PATIENCE)


def begin_to_stream(connection: socket.socket, session_id: str, tokens: int) -> None:
    """Ask for events, and read until the first comes."""
    fields = {"max_tokens": tokens, "stream": True, "commit": False}
    connection.sendall(request(f"/sessions/{session_id}/continue", **fields))
    read_until(connection, b"event: token")


def begin_to_talk(connection: socket.socket, session_id: str, tokens: int) -> None:
    """Ask for frames, and read until the first comes."""
    connection.sendall(
        f"GET /sessions/{session_id}/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    read_until(connection, b"\r\n\r\n")
    connection.sendall(frame(id=1, type="continue", max_tokens=tokens, stream=True, commit=False))
    read_until(connection, b'"type":"token"')


def ask_for_much(connection: socket.socket, session_id: str, tokens: int) -> None:
    """Ask for an answer that is long at once, and read its beginning."""
    connection.sendall(request("/perplexity", text="harbour " * (tokens // 4), return_tokens=True))
    read_until(connection, b"HTTP/1.1 200 OK")


def ask_often(connection: socket.socket, session_id: str, tokens: int) -> None:
    """Send many requests at once, and read the beginning of the first answer."""
    connection.sendall(request("/predict", text="harbour", k=100) * 50)
    read_until(connection, b"HTTP/1.1 200 OK")


def read_until(connection: socket.socket, end: bytes) -> None:
    """Read what comes, a little at a time, to where it holds `end`."""
    found = b""
    while end not in found:
        part = connection.recv(64)
        assert part, found
        found += part


def predict(service: Service, count: int = 1) -> list[int]:
    """The statuses of so many requests of somebody else at once."""
    with client(service) as asking, ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(asking.post, "/predict", json={"text": "the"}) for _ in range(count)]
        return [answer.result().status_code for answer in asked]


Begin = Callable[[socket.socket, str, int], None]


def vanish(service: Service, begin: Begin, sessions: list[str], *, reset: bool) -> None:
    """Clients that ask for much, one for each session, and leave at the beginning of the answer."""
    with ExitStack() as vanishing:
        for session_id in sessions:
            connection = vanishing.enter_context(connect(service))
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            begin(connection, session_id, 1000)
        assert predict(service) == [200]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("begin", [begin_to_stream, begin_to_talk])
def test_clients_that_vanish_in_a_stream_leave_nothing_behind(service: Service, begin: Begin, reset: bool) -> None:
    before = held(service)
    sessions = create(service)
    vanish(service, begin, sessions, reset=reset)
    until(lambda: held(service) == before)
    assert predict(service, QUEUE_LIMIT + 1) == [200] * (QUEUE_LIMIT + 1)
    # The sessions are nobody's any more.
    assert append(service, sessions) == [2] * CLIENTS


def test_clients_that_vanished_leave_no_memory_that_a_stream_took(service: Service) -> None:
    sessions = create(service, 10)
    taken = []
    for _ in range(6):
        for begin in (begin_to_stream, begin_to_talk, ask_for_much):
            vanish(service, begin, sessions, reset=True)
        taken.append(service.resident_bytes())
    # 150 answers of hundreds of kilobytes; what grows at first is what the interpreter keeps for what is to come.
    assert taken[-1] - taken[0] < 8 * MEGABYTE, taken


async def drip(service: Service, opening: bytes, drops: bytes) -> bytes:
    """Send an opening at once and then byte after byte, over and over, until the process closes; what it answered.

    Nothing where a byte crossed the refusal: the system then resets the connection and forgets what was unread.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(opening)

    async def send() -> None:
        for drop in itertools.cycle(drops):
            await asyncio.sleep(DRIP_SECONDS)
            writer.write(bytes([drop]))

    sending = asyncio.create_task(send())
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        sending.cancel()
        writer.close()


LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = f"POST /predict HTTP/1.1\r\nHost: x\r\n{JSON}\r\n".encode()
SLOW = {
    "nothing": (b"", b""),
    "a head": (b"", b"GET /health/live HTTP/1.1\r\nX-Long: " + b"a" * 1000),
    "empty lines": (b"", b"\r\n"),
    "a second head": (LIVE, b"GET /health/live HTTP/1.1\r\nX-Long: " + b"a" * 1000),
    "a body": (HEAD + b"Content-Length: 1000\r\n\r\n", b"{ "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Long: " + b"a" * 1000),
    "a body that nobody reads": (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"a"),
}
"""What a slow client sends at once, and what it sends a byte at a time."""


def test_what_comes_a_byte_at_a_time_is_refused_at_the_deadline_and_holds_nobody_up(service: Service) -> None:
    async def drip_all() -> list[bytes]:
        kinds = [kind for kind in SLOW.values() for _ in range(CLIENTS)]
        return await asyncio.gather(*(drip(service, *kind) for kind in kinds))

    before = held(service)
    with ThreadPoolExecutor(1) as pool:
        dripping = pool.submit(asyncio.run, asyncio.wait_for(drip_all(), PATIENCE))
        until(lambda: service.open_files() >= before.files + CLIENTS)
        assert predict(service, QUEUE_LIMIT + 1) == [200] * (QUEUE_LIMIT + 1)
        answers = dripping.result()
    for number, kind in enumerate(SLOW):
        received = [answer for answer in answers[number * CLIENTS : (number + 1) * CLIENTS] if answer]
        assert len(received) > CLIENTS // 2, kind
        for answer in received:
            *earlier, last = answer.split(b"HTTP/1.1 ")[1:]
            assert last.startswith(b"408 Request Timeout"), (kind, answer)
            head, _, body = last.partition(b"\r\n\r\n")
            assert b"connection: close" in head.lower()
            assert "within 1 seconds" in json.loads(body)["detail"]
            expected = {"a second head": [b"200"], "a body that nobody reads": [b"404"]}.get(kind, [])
            assert [status[:3] for status in earlier] == expected
    until(lambda: held(service) == before)


@pytest.mark.parametrize("begin", [begin_to_stream, begin_to_talk, ask_for_much, ask_often])
def test_clients_that_never_read_are_left_at_the_deadline_and_hold_nobody_up(service: Service, begin: Begin) -> None:
    before = held(service)
    sessions = create(service)
    with ExitStack() as idle:
        for session_id in sessions:
            begin(idle.enter_context(connect(service)), session_id, 1000)
        assert predict(service) == [200]
        assert append(service, sessions) == [2] * CLIENTS
        # They are there still, and the process holds nothing for them.
        until(lambda: held(service) == before)
    assert predict(service, QUEUE_LIMIT + 1) == [200] * (QUEUE_LIMIT + 1)
