"""Servers with sessions that outlive them, and what is said to them over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from app.sessions.blob import from_blob
from tests.app.fakes import NumpyEngine, small_vocabulary
from tests.app.processes import served_with
from tests.app.serving import PATIENCE, until

WORDS = ["harbour", "is", "small", "boats", "leave", "the", "sea"]


@contextmanager
def two_servers(store: str) -> Iterator[list[httpx2.Client]]:
    """Clients of two processes that keep their sessions in one store; neither may end or complain."""
    with served_with(store) as one, served_with(store) as two:
        for service in (one, two):
            service.wait_until_ready()
        with (
            httpx2.Client(base_url=one.url, timeout=PATIENCE) as first,
            httpx2.Client(base_url=two.url, timeout=PATIENCE) as second,
        ):
            until(lambda: all(client.post("/sessions", json={}).status_code == 201 for client in (first, second)))
            yield [first, second]
        for service in (one, two):
            assert service.process.poll() is None
            assert service.said == []


def post(client: httpx2.Client, path: str, **fields: Any) -> dict[str, Any]:
    """The answer to a POST that succeeds."""
    response = client.post(path, json=fields)
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


def predictions(client: httpx2.Client, session_id: str) -> Any:
    """What a session says may come next."""
    return post(client, f"/sessions/{session_id}/append", text="", k=20)["predictions"]


def state(client: httpx2.Client, session_id: str) -> bytes:
    """The packed row of a session, as it is exported."""
    size = len(small_vocabulary())
    engine = NumpyEngine(size)
    data = client.get(f"/sessions/{session_id}/export").content
    return from_blob(data, engine.state_size, engine.hidden_size, size).cursor.state.tobytes()


def check_reads_as(servers: list[httpx2.Client], session_id: str, text: str) -> None:
    """On each server a session is what it would be had the text been read at once on one of them."""
    at_once: str = post(servers[0], "/sessions", text=text)["session_id"]
    for client in servers:
        standing, expected = (client.get(f"/sessions/{name}").json()["position"] for name in (session_id, at_once))
        assert standing == expected == len(text.split())
        assert state(client, session_id) == state(client, at_once)
        assert predictions(client, session_id) == predictions(client, at_once)
