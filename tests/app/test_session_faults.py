"""Sessions through accidents: a server that is killed or ended, clients that vanish."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2

from tests.app.processes import Service, served_with
from tests.app.serving import PATIENCE, until
from tests.app.sharing import WORDS

CLIENTS, APPENDS = 8, 125


def serving(path: Path) -> AbstractContextManager[Service]:
    """A process that serves a small model and keeps its sessions in a file."""
    return served_with(f"sqlite:///{path}")


class Typist(threading.Thread):
    """Appends word after word to a session of its own, each with a key and where it expects to stand."""

    def __init__(self, service: Service, number: int) -> None:
        super().__init__()
        self.number = number
        self.client = httpx2.Client(base_url=service.url, timeout=PATIENCE)
        self.session_id: str = self.client.post("/sessions", json={}).json()["session_id"]
        self.acknowledged: list[dict[str, Any]] = []

    def request(self, client: httpx2.Client, place: int) -> httpx2.Response:
        """The append of one word."""
        return client.post(
            f"/sessions/{self.session_id}/append",
            json={"text": WORDS[(self.number + place) % len(WORDS)], "expected_position": place},
            headers={"Idempotency-Key": f"{self.number}-{place}"},
        )

    def run(self) -> None:
        """Type until the server is gone."""
        try:
            for place in range(APPENDS):
                self.acknowledged.append(self.request(self.client, place).json())
        except (httpx2.HTTPError, json.JSONDecodeError):
            pass


def test_a_server_killed_amid_a_thousand_appends_has_every_acknowledged_one_and_none_twice(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with serving(path) as service:
        service.wait_until_ready()
        typists = [Typist(service, number) for number in range(CLIENTS)]
        for typist in typists:
            typist.start()
        until(lambda: sum(len(typist.acknowledged) for typist in typists) >= CLIENTS * APPENDS // 3)
        service.process.kill()
        for typist in typists:
            typist.join()
            typist.client.close()
    assert CLIENTS * APPENDS // 3 <= sum(len(typist.acknowledged) for typist in typists) < CLIENTS * APPENDS
    with serving(path) as service, httpx2.Client(base_url=service.url, timeout=PATIENCE) as client:
        service.wait_until_ready()
        for typist in typists:
            known = len(typist.acknowledged)
            stands = client.get(f"/sessions/{typist.session_id}").json()["position"]
            # What was under way when the server died may have been kept, and was not acknowledged.
            assert stands in (known, known + 1)
            # Sent again, as a client does that had no answer, it is there once; what was answered is answered the same.
            assert typist.request(client, known).json()["position"] == known + 1
            assert typist.request(client, known - 1).json() == typist.acknowledged[-1]
            assert client.get(f"/sessions/{typist.session_id}").json()["position"] == known + 1


def test_a_session_goes_on_after_a_restart_as_if_there_had_been_none(tmp_path: Path) -> None:
    def ask(service: Service, path: str, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = service.ask(path, **fields).json()
        return answer

    with serving(tmp_path / "sessions.db") as service:
        service.wait_until_ready()
        session_id, other = (ask(service, "/sessions", text="the harbour is")["session_id"] for _ in range(2))
        expected = ask(service, f"/sessions/{other}/append", text="small , but the boats")
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
    with serving(tmp_path / "sessions.db") as service:
        service.wait_until_ready()
        found = ask(service, f"/sessions/{session_id}/append", text="small , but the boats")
        for name in ("tokens", "predictions", "position"):
            assert found[name] == expected[name]


def test_clients_that_vanish_in_a_stream_leave_nothing_behind(tmp_path: Path) -> None:
    with serving(tmp_path / "sessions.db") as service:
        service.wait_until_ready()
        session_id = service.ask("/sessions").json()["session_id"]
        files = Path(f"/proc/{service.process.pid}/fd")
        before = len(list(files.iterdir()))
        body = json.dumps({"max_tokens": 1000, "stream": True, "commit": False}).encode()
        head = f"POST /sessions/{session_id}/continue HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
        until(lambda: len(list(files.iterdir())) <= before)
        # The session is nobody's any more: it does at once what it is asked.
        assert service.ask(f"/sessions/{session_id}/append", text="the").json()["position"] == 1
