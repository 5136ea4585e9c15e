"""Several servers with their sessions in one Redis: any goes on with any session, and accidents lose nothing."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest

from tests.app.processes import Service, served
from tests.app.serving import PATIENCE, until
from tests.redis_server import DURABLE, RedisServer, redis_server

SERVE = """
from app.server import run
from app.settings import load_settings
from tests.app.fakes import fake_model

run(load_settings(), fake_model())
"""
CLIENTS, APPENDS = 8, 125
WORDS = ["harbour", "is", "small", "boats", "leave", "the", "sea"]


def serving(url: str) -> AbstractContextManager[Service]:
    """A process that serves a small model and keeps its sessions in a Redis."""
    return served("-c", SERVE, session_store=url, log_level="info")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that loses nothing it acknowledged."""
    with redis_server(*DURABLE) as server:
        yield server


@pytest.fixture(scope="module")
def replicas(redis: RedisServer, _default_settings: None) -> Iterator[list[httpx2.Client]]:
    """Clients of two servers that share their sessions."""
    with serving(redis.url) as one, serving(redis.url) as two:
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
            assert "Redis at" in response.json()["detail"]
        for client in replicas:
            assert client.get(f"/sessions/{typist.session_id}").json()["position"] == APPENDS
            # Each is there once: sent again, it is answered as it was, wherever it was made.
            for place in (0, APPENDS // 3, APPENDS - 1):
                assert typist.request(place, client).json() == typist.acknowledged[place]
        words = " ".join(WORDS[(typist.number + place) % len(WORDS)] for place in range(APPENDS))
        at_once = post(replicas[0], "/sessions", text=words)
        assert at_once["position"] == APPENDS
        assert predictions(replicas[1], typist.session_id) == predictions(replicas[1], at_once["session_id"])


def predictions(client: httpx2.Client, session_id: str) -> Any:
    """What a session says may come next."""
    return post(client, f"/sessions/{session_id}/append", text="", k=20)["predictions"]


def test_two_servers_that_append_to_one_session_at_once_make_one_text_of_all_they_acknowledged(
    replicas: list[httpx2.Client],
) -> None:
    session_id = post(replicas[0], "/sessions")["session_id"]
    parts = [" ".join(WORDS[n % 7 :][: 1 + n % 3]) for n in range(60)]

    def append(n: int) -> tuple[int, int, str]:
        """The positions that one part of the text was read from and to."""
        answer = post(replicas[n % 2], f"/sessions/{session_id}/append", text=parts[n])
        return answer["position"] - len(answer["tokens"]), answer["position"], parts[n]

    with ThreadPoolExecutor(6) as pool:
        read = sorted(pool.map(append, range(60)))
    text = " ".join(part for _, _, part in read)
    assert [start for start, _, _ in read] == [0] + [stop for _, stop, _ in read[:-1]]
    assert read[-1][1] == len(text.split())
    at_once = post(replicas[1], "/sessions", text=text)
    assert at_once["position"] == replicas[0].get(f"/sessions/{session_id}").json()["position"]
    assert predictions(replicas[0], session_id) == predictions(replicas[0], at_once["session_id"])


def test_of_two_servers_that_are_told_where_to_append_one_appends_and_one_is_told_it_moved(
    replicas: list[httpx2.Client],
) -> None:
    session_id = post(replicas[0], "/sessions", text="the")["session_id"]
    for place in range(1, 21):

        def append(client: httpx2.Client, place: int = place) -> httpx2.Response:
            return client.post(f"/sessions/{session_id}/append", json={"text": "sea", "expected_position": place})

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(append, replicas))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert [answer.json()["position"] for answer in answers] == [place + 1, place + 1]


def test_a_session_goes_from_server_to_server_and_has_the_bytes_it_would_have_had_on_one(
    replicas: list[httpx2.Client],
) -> None:
    def exports(clients: Iterator[httpx2.Client]) -> tuple[bytes, bytes, str]:
        """What a session and its fork are, and what was written, where each step is another client's."""
        session_id = post(next(clients), "/sessions", text="the harbour is small")["session_id"]
        path = f"/sessions/{session_id}"
        post(next(clients), f"{path}/append", text=", but the boats that leave")
        post(next(clients), f"{path}/rewind", position=6)
        post(next(clients), f"{path}/append", text="sea is")
        written = post(next(clients), f"{path}/continue", max_tokens=5, seed=3)["text"]
        fork = post(next(clients), f"{path}/fork")["session_id"]
        post(next(clients), f"/sessions/{fork}/append", text="known")
        found = [next(clients).get(f"/sessions/{name}/export").content for name in (session_id, fork)]
        for name in (session_id, fork):
            assert next(clients).delete(f"/sessions/{name}").status_code == 204
            assert next(clients).get(f"/sessions/{name}").status_code == 404
        return found[0], found[1], written

    assert exports(itertools.cycle(replicas)) == exports(itertools.repeat(replicas[0]))


def test_a_redis_that_comes_later_is_503_until_then_the_rest_is_served_and_no_password_is_told(
    redis: RedisServer,
) -> None:
    redis.configure(requirepass="sesame")
    try:
        with serving(f"unix://:mellon@{redis.socket}") as service:
            service.wait_until_ready()
            until(lambda: bool(service.events("the session store failed")))
            refused = service.ask("/sessions", text="the")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert str(redis.socket) in refused.json()["detail"]
            assert service.ask("/predict", text="the").status_code == 200
            assert "refuses the user or the password" in service.events("the session store failed")[0]["reason"]
            redis.ask("CONFIG", "SET", "requirepass", "mellon")
            until(lambda: service.ask("/sessions", text="the").status_code == 201)
            service.process.terminate()
            assert service.process.wait(PATIENCE) == 0
    finally:
        redis.ask("CONFIG", "SET", "requirepass", "")
    assert service.said == []
    assert "mellon" not in str(service.lines) + refused.text


def test_a_redis_that_may_lose_sessions_is_named_in_the_log() -> None:
    with redis_server() as redis, serving(redis.url) as service:
        until(lambda: len(service.events("the session store promises less")) == 2)
        reasons = [
            line["reason"].rpartition("set its ")[2] for line in service.events("the session store promises less")
        ]
    assert reasons == ["appendonly to yes", "appendfsync to always"]
