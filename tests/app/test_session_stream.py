"""Sessions over a WebSocket: the same answers as frames that carry the client's id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.app.fakes import Gate, LogLines, NumpyEngine, fake_model
from tests.app.memory_store import MemoryStore
from tests.app.serving import make_app, serving, until

FRAMES: list[tuple[str, dict[str, Any]]] = [
    ("append", {"text": "is small", "k": 2, "expected_position": 2}),
    ("rewind", {"position": 3}),
    ("continue", {"max_tokens": 4, "seed": 5}),
    ("append", {"prefix": "b"}),
]


@pytest.fixture
def sessions() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def create(client: TestClient, text: str) -> str:
    session_id: str = client.post("/sessions", json={"text": text}).json()["session_id"]
    return session_id


def answer(found: dict[str, Any]) -> dict[str, Any]:
    """A frame without what HTTP does not say, nor when the session ends."""
    return {name: value for name, value in found.items() if name not in ("id", "type", "expires_at", "session_id")}


def test_frames_are_answered_as_the_routes_answer(sessions: TestClient) -> None:
    session_id, other = create(sessions, "the harbour"), create(sessions, "the harbour")
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        for frame_id, (kind, fields) in enumerate(FRAMES):
            socket.send_json({"id": frame_id, "type": kind, **fields})
            frame = socket.receive_json()
            assert (frame["id"], frame["type"]) == (frame_id, kind)
            assert answer(frame) == answer(sessions.post(f"/sessions/{other}/{kind}", json=fields).json())


def test_frames_sent_at_once_are_done_in_the_order_they_came(sessions: TestClient) -> None:
    session_id = create(sessions, "the")
    words = ["harbour", "is", "small", "but", "the", "boats"] * 10
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        for number, word in enumerate(words):
            socket.send_json({"id": f"word {number}", "type": "append", "text": word})
        frames = [socket.receive_json() for _ in words]
    assert [frame["id"] for frame in frames] == [f"word {number}" for number in range(60)]
    assert [frame["position"] for frame in frames] == list(range(2, 62))
    assert [frame["tokens"][0]["token"] for frame in frames] == words


def test_words_written_on_come_as_frames_of_their_own(sessions: TestClient) -> None:
    session_id, other = create(sessions, "the"), create(sessions, "the")
    whole = sessions.post(f"/sessions/{other}/continue", json={"max_tokens": 5, "seed": 1}).json()
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        socket.send_json({"id": 1, "type": "continue", "max_tokens": 5, "seed": 1, "stream": True})
        frames = [socket.receive_json() for _ in range(6)]
    assert [(frame["id"], frame["type"]) for frame in frames] == [(1, "token")] * 5 + [(1, "done")]
    assert [answer(frame) for frame in frames[:5]] == whole["tokens"]
    assert frames[5]["position"] == 6
    assert frames[5]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("frame", "frame_id", "status", "detail"),
    [
        ("{", None, 400, "not valid JSON"),
        ('{"id": 1}', None, 422, "type"),
        ('{"id": 1, "type": "append", "text": 5}', None, 422, "text"),
        ('{"id": 1, "type": "append", "colour": "red"}', None, 422, "colour"),
        ('{"type": "append"}', None, 422, "id"),
        ('{"id": 2, "type": "rewind", "position": 99}', 2, 422, "can go back from 1 to 0"),
        ('{"id": 3, "type": "append", "expected_position": 9}', 3, 409, "stands at 1"),
    ],
)
def test_a_frame_that_cannot_be_honoured_is_answered_with_a_problem_and_the_talk_goes_on(
    sessions: TestClient, frame: str, frame_id: int | None, status: int, detail: str
) -> None:
    session_id = create(sessions, "the")
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        socket.send_text(frame)
        problem = socket.receive_json()
        assert (problem["id"], problem["type"], problem["status"]) == (frame_id, "error", status)
        assert detail in problem["detail"]
        assert problem["request_id"]
        socket.send_json({"id": "next", "type": "append", "text": "harbour"})
        assert socket.receive_json()["position"] == 2


def test_a_session_that_is_not_there_is_a_problem_of_each_frame(sessions: TestClient) -> None:
    with sessions.websocket_connect("/sessions/nowhere/stream") as socket:
        socket.send_json({"id": 1, "type": "append"})
        assert socket.receive_json()["status"] == 404


def test_a_key_sent_again_after_a_new_connection_does_nothing_twice(sessions: TestClient) -> None:
    session_id = create(sessions, "the")
    frame = {"id": 1, "type": "append", "text": "harbour", "idempotency_key": "k"}
    answers = []
    for _ in range(2):
        with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
            socket.send_json(frame)
            answers.append(socket.receive_json())
    assert answers[0] == answers[1]
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        socket.send_json(frame | {"text": "boats"})
        assert socket.receive_json()["status"] == 422
    assert sessions.get(f"/sessions/{session_id}").json()["position"] == 2


def test_what_is_cancelled_does_not_happen_and_what_follows_does() -> None:
    gate = Gate()
    store = MemoryStore()
    with serving(fake_model(build=lambda size: NumpyEngine(size, before=gate)), store=store) as client:
        session_id = create(client, "the")
        with client.websocket_connect(f"/sessions/{session_id}/stream") as socket:
            gate.shut()
            socket.send_json({"id": 1, "type": "append", "text": "harbour"})
            until(gate.reached.is_set)
            socket.send_json({"id": 2, "type": "append", "text": "boats"})
            socket.send_json({"id": 3, "type": "cancel", "target": 1})
            socket.send_json({"id": 4, "type": "cancel", "target": 77})
            frames = {}
            for _ in range(3):
                frame = socket.receive_json()
                frames[frame["id"]] = frame
            assert frames[3] == {"id": 3, "type": "cancel", "target": 1, "cancelled": True}
            assert frames[4] == {"id": 4, "type": "cancel", "target": 77, "cancelled": False}
            assert frames[1] == {"id": 1, "type": "cancelled"}
            gate.open.set()
            last = socket.receive_json()
        assert (last["id"], last["position"]) == (2, 2)
        assert last["tokens"][0]["token"] == "boats"


def test_a_client_that_leaves_takes_with_it_what_is_not_done() -> None:
    gate = Gate()
    store = MemoryStore()
    with serving(fake_model(build=lambda size: NumpyEngine(size, before=gate)), store=store) as client:
        session_id = create(client, "the")
        with client.websocket_connect(f"/sessions/{session_id}/stream") as socket:
            gate.shut()
            socket.send_json({"id": 1, "type": "append", "text": "harbour"})
            until(gate.reached.is_set)
        gate.open.set()
        assert client.post(f"/sessions/{session_id}/append", json={}).json()["position"] == 1


def test_frames_that_share_an_id_are_all_given_up_with_their_client() -> None:
    gate = Gate()
    with serving(fake_model(build=lambda size: NumpyEngine(size, before=gate))) as client:
        session_id = create(client, "the")
        with client.websocket_connect(f"/sessions/{session_id}/stream") as socket:
            gate.shut()
            for _ in range(5):
                socket.send_json({"id": 1, "type": "append", "text": "harbour"})
            until(gate.reached.is_set)
        gate.open.set()
        assert client.post(f"/sessions/{session_id}/append", json={}).json()["position"] == 1


def test_a_service_that_is_not_ready_yet_asks_talkers_to_come_again() -> None:
    gate, logs = Gate(), LogLines()

    def build(size: int) -> NumpyEngine:
        gate()
        return NumpyEngine(size)

    gate.shut()
    with TestClient(make_app(fake_model(build=build), logs)) as client:
        try:
            with client.websocket_connect("/sessions/nowhere/stream") as socket:
                with pytest.raises(WebSocketDisconnect) as closed:
                    socket.receive_json()
                assert closed.value.code == 1013
        finally:
            gate.open.set()
    assert not logs.events("failed")


def test_bytes_end_the_talk(sessions: TestClient) -> None:
    session_id = create(sessions, "the")
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        socket.send_bytes(b"\x00")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1003


def test_a_service_that_drains_sends_new_talkers_elsewhere(sessions: TestClient) -> None:
    session_id = create(sessions, "the")
    sessions.app.state.lifecycle.draining = True  # type: ignore[attr-defined]
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1012
