"""Servers with their sessions in a Redis that dies, comes late or may forget: what was acknowledged is not lost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from benchmarks.redis_server import DURABLE, RedisServer
from tests.app.processes import served_with
from tests.app.serving import PATIENCE, until
from tests.app.sharing import WORDS, post, predictions, two_servers
from tests.redis_server import redis_server

CLIENTS, APPENDS = 8, 125


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that loses nothing it acknowledged."""
    with redis_server(*DURABLE) as server:
        yield server


@pytest.fixture(scope="module")
def replicas(redis: RedisServer, _default_settings: None) -> Iterator[list[httpx2.Client]]:
    """Clients of two servers that share their sessions."""
    with two_servers(redis.url) as clients:
        yield clients


class Typist(threading.Thread):
    """Appends word after word to a session of its own, each to the other server, and again until it is answered."""

    def __init__(self, replicas: list[httpx2.Client], number: int) -> None:
        super().__init__()
        self.number = number
        self.replicas = replicas
        self.session_id: str = post(replicas[0], "/sessions")["session_id"]
        self.acknowledged: list[dict[str, Any]] = []
        self.refused: list[httpx2.Response] = []

    def request(self, place: int, client: httpx2.Client) -> httpx2.Response:
        """The append of one word."""
        return client.post(
            f"/sessions/{self.session_id}/append",
            json={"text": WORDS[(self.number + place) % len(WORDS)], "expected_position": place},
            headers={"Idempotency-Key": f"{self.number}-{place}"},
        )

    def run(self) -> None:
        """Type to the end; a 503 is tried again, at the other server as well."""
        turns = itertools.cycle(self.replicas)
        for place in range(APPENDS):
            while (response := self.request(place, next(turns))).status_code == 503:
                self.refused.append(response)
                time.sleep(0.05)
            self.acknowledged.append(response.json())


def test_a_redis_killed_amid_a_thousand_appends_loses_none_that_was_acknowledged_and_makes_none_twice(
    redis: RedisServer, replicas: list[httpx2.Client]
) -> None:
    typists = [Typist(replicas, number) for number in range(CLIENTS)]
    for typist in typists:
        typist.start()
    until(lambda: sum(len(typist.acknowledged) for typist in typists) >= CLIENTS * APPENDS // 3)
    redis.kill()
    until(lambda: all(typist.refused for typist in typists))
    assert sum(len(typist.acknowledged) for typist in typists) < CLIENTS * APPENDS
    redis.start()
    for typist in typists:
        typist.join(PATIENCE)
        assert [answer["position"] for answer in typist.acknowledged] == list(range(1, APPENDS + 1))
        for response in typist.refused:
            assert response.headers["retry-after"] == "1"
            # Away, or still loading.
            assert response.json()["detail"].startswith("the session store ")
            assert "/" not in response.json()["detail"]
        for client in replicas:
            assert client.get(f"/sessions/{typist.session_id}").json()["position"] == APPENDS
            # Each is there once: sent again, it is answered as it was, wherever it was made.
            for place in (0, APPENDS // 3, APPENDS - 1):
                assert typist.request(place, client).json() == typist.acknowledged[place]
        words = " ".join(WORDS[(typist.number + place) % len(WORDS)] for place in range(APPENDS))
        at_once = post(replicas[0], "/sessions", text=words)
        assert at_once["position"] == APPENDS
        assert predictions(replicas[1], typist.session_id) == predictions(replicas[1], at_once["session_id"])


def test_a_redis_that_comes_later_is_503_until_then_the_rest_is_served_and_no_password_is_told(
    redis: RedisServer,
) -> None:
    redis.configure(requirepass="sesame")
    try:
        with served_with(f"unix://:mellon@{redis.socket}") as service:
            service.wait_until_ready()
            until(lambda: bool(service.events("the session store failed")))
            refused = service.ask("/sessions", text="the")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            wrong = "refuses the service's user or password"
            assert refused.json()["detail"] == f"the session store {wrong}; try again later"
            assert service.ask("/predict", text="the").status_code == 200
            reason = service.events("the session store failed")[0]["reason"]
            assert reason.startswith(f"Redis at {redis.socket} {wrong}; ")
            redis.ask("CONFIG", "SET", "requirepass", "mellon")
            until(lambda: service.ask("/sessions", text="the").status_code == 201)
            service.process.terminate()
            assert service.process.wait(PATIENCE) == 0
    finally:
        redis.ask("CONFIG", "SET", "requirepass", "")
    assert service.said == []
    assert "mellon" not in str(service.lines) + refused.text


def test_a_redis_that_may_lose_sessions_is_named_in_the_log() -> None:
    with redis_server() as redis, served_with(redis.url) as service:
        until(lambda: len(service.events("the session store promises less")) == 2)
        reasons = [
            line["reason"].rpartition("set its ")[2] for line in service.events("the session store promises less")
        ]
    assert reasons == ["appendonly to yes", "appendfsync to always"]
