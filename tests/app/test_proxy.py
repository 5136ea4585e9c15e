"""Two replicas behind the proxy: sessions stick to neither, and one that dies takes nothing along."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

from benchmarks.proxy import proxy
from tests.app.processes import SERVE_SLOWLY, Service, served
from tests.app.serving import PATIENCE, until
from tests.proxy import required_haproxy
from tests.redis_server import redis_server

CLIENTS, APPENDS = 6, 60
WORDS = ["harbour", "is", "small", "boats", "leave", "the", "sea"]
AGAIN = {502, 503, 504}
"""Statuses after which a request with a key is sent again."""


@pytest.fixture
def replicas(tmp_path: Path, _default_settings: None) -> Iterator[tuple[str, list[Service]]]:
    """The proxy's address, and the two servers behind it."""
    command = ("-c", SERVE_SLOWLY, "0")
    with (
        redis_server() as redis,
        served(*command, session_store=redis.url) as one,
        served(*command, session_store=redis.url) as two,
        proxy(required_haproxy(), [one.port, two.port], tmp_path) as port,
    ):
        url = f"http://127.0.0.1:{port}"
        for service in (one, two):
            service.wait_until_ready()
        until(lambda: httpx2.post(f"{url}/sessions", json={}).status_code == 201)
        yield url, [one, two]


class Typist(threading.Thread):
    """Appends word after word to a session of its own, each again until it is answered."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__()
        self.url = url
        self.number = number
        self.positions: list[int] = []
        self.failures: list[str] = []
        self.session_id: str = httpx2.post(f"{url}/sessions", json={}).json()["session_id"]

    def run(self) -> None:
        """Type to the end."""
        with httpx2.Client(timeout=PATIENCE) as client:
            for place in range(APPENDS):
                while (answer := self._append(client, place)) is None:
                    time.sleep(0.02)
                self.positions.append(answer)

    def _append(self, client: httpx2.Client, place: int) -> int | None:
        """The new position; None where the same is to be sent again."""
        try:
            response = client.post(
                f"{self.url}/sessions/{self.session_id}/append",
                json={"text": WORDS[(self.number + place) % len(WORDS)], "expected_position": place},
                headers={"Idempotency-Key": f"{self.number}-{place}"},
            )
        except httpx2.TransportError as error:
            self.failures.append(type(error).__name__)
            return None
        if response.status_code in AGAIN:
            self.failures.append(str(response.status_code))
            return None
        assert response.status_code == 200, response.text
        position: int = response.json()["position"]
        return position


def test_a_replica_killed_under_load_loses_no_word_and_the_other_takes_over(
    replicas: tuple[str, list[Service]],
) -> None:
    url, services = replicas
    typists = [Typist(url, number) for number in range(CLIENTS)]
    for typist in typists:
        typist.start()
    until(lambda: sum(len(typist.positions) for typist in typists) >= CLIENTS * APPENDS // 3)
    services[0].process.kill()
    for typist in typists:
        typist.join(PATIENCE)
    until(lambda: len(services[1].events("request")) > 0)
    for typist in typists:
        assert typist.positions == list(range(1, APPENDS + 1))
        assert httpx2.get(f"{url}/sessions/{typist.session_id}").json()["position"] == APPENDS
        # What was in the killed replica's hands fails once or twice; nothing is sent there for long.
        assert len(typist.failures) < APPENDS


def test_both_replicas_serve_one_session(replicas: tuple[str, list[Service]]) -> None:
    url, services = replicas
    session_id = httpx2.post(f"{url}/sessions", json={}).json()["session_id"]
    for place in range(20):  # Each on a connection of its own.
        answer = httpx2.post(f"{url}/sessions/{session_id}/append", json={"text": "the", "expected_position": place})
        assert answer.json()["position"] == place + 1
    route = "/sessions/{session_id}/append"
    until(lambda: sum(line["route"] == route for it in services for line in it.events("request")) == 20)
    assert all(any(line["route"] == route for line in service.events("request")) for service in services)


def test_streams_and_websockets_pass_the_proxy_word_by_word(replicas: tuple[str, list[Service]]) -> None:
    url, _ = replicas
    session_id = httpx2.post(f"{url}/sessions", json={"text": "the"}).json()["session_id"]
    fields = {"max_tokens": 5, "seed": 1, "stream": True, "commit": False}
    with httpx2.stream("POST", f"{url}/sessions/{session_id}/continue", json=fields) as response:
        events = [line.removeprefix("event: ") for line in response.iter_lines() if line.startswith("event: ")]
    assert events == ["token"] * 5 + ["done"]
    with connect(f"{url.replace('http', 'ws')}/sessions/{session_id}/stream") as socket:
        socket.send(json.dumps({"id": 1, "type": "append", "text": "harbour"}))
        assert json.loads(socket.recv(PATIENCE))["position"] == 2


def test_probes_and_metrics_of_replicas_are_not_shown_to_the_world(replicas: tuple[str, list[Service]]) -> None:
    url, _ = replicas
    for path in ("/metrics", "/health/ready", "/health/live", "/%6Detrics", "/h%65alth/ready"):
        assert httpx2.get(f"{url}{path}").status_code == 404
    assert httpx2.get(f"{url}/model").status_code == 200
