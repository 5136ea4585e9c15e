"""What is asked of the store is answered as it was done: past a deadline, given up, or with nobody there any more."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.routes.session_stream import Conversation
from app.sessions.sqlite import SQLiteStore
from app.sessions.store import SessionRecord, StoredAnswer
from tests.app.memory_store import MemoryStore
from tests.app.serving import make_app, ready, serving, starting, until
from tests.app.talking import create, post

DEADLINE = 0.2


class Lock:
    """Another program's lock on a store's file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    @contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Held from the beginning of the block, for so many seconds."""
        self._connection.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, self._connection.execute, ["ROLLBACK"])
        timer.start()
        yield
        timer.join()


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("append", {"text": "is small"}),
    ("rewind", {"position": 1}),
    ("continue", {"max_tokens": 3}),
]


@pytest.mark.parametrize(("kind", "fields"), CHANGES)
def test_a_change_that_is_with_the_store_at_the_deadline_is_answered_as_it_is_made(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    path = tmp_path / "sessions.db"
    with serving(store=SQLiteStore(path), deadline_seconds=DEADLINE) as client:
        session_id = create(client, "the harbour")
        with Lock(path).held(3 * DEADLINE):
            answer = post(client, f"/sessions/{session_id}/{kind}", **fields)
        assert answer["position"] != 2
        assert client.get(f"/sessions/{session_id}").json()["position"] == answer["position"]


def test_a_session_that_is_with_the_store_at_the_deadline_is_answered_as_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with serving(store=SQLiteStore(path), deadline_seconds=DEADLINE) as client:
        session_id = create(client, "the harbour")
        with Lock(path).held(3 * DEADLINE):
            made = create(client, "the harbour")
        with Lock(path).held(3 * DEADLINE):
            fork = post(client, f"/sessions/{session_id}/fork", 201)
        for name in (made, fork["session_id"]):
            assert client.get(f"/sessions/{name}").json()["position"] == 2


@pytest.mark.parametrize(("kind", "fields"), CHANGES)
def test_a_change_that_the_store_gives_up_past_the_deadline_is_not_made_and_says_why(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    path = tmp_path / "sessions.db"
    with serving(store=SQLiteStore(path, busy_timeout=2 * DEADLINE), deadline_seconds=DEADLINE) as client:
        session_id = create(client, "the harbour")
        with Lock(path).held(6 * DEADLINE):
            problem = post(client, f"/sessions/{session_id}/{kind}", 503, **fields)
        assert "is locked" in problem["detail"]
        assert client.get(f"/sessions/{session_id}").json()["position"] == 2


class SlowStore(MemoryStore):
    """A store that makes changes once it may, whether or not whoever asked still waits."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.may.set()
        self.begun = threading.Event()

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        async def later() -> bool:
            await asyncio.to_thread(self.may.wait, 20)
            return await MemoryStore.replace(self, record, answer)

        self.begun.set()
        return await asyncio.shield(asyncio.ensure_future(later()))

    def hold(self) -> None:
        self.begun.clear()
        self.may.clear()


@pytest.mark.parametrize(
    ("frame", "last"),
    [
        ({"type": "append", "text": "harbour"}, "append"),
        ({"type": "continue", "max_tokens": 2}, "continue"),
        ({"type": "continue", "max_tokens": 2, "stream": True}, "done"),
    ],
)
def test_a_frame_given_up_once_it_is_with_the_store_is_answered_as_it_is_done(frame: Any, last: str) -> None:
    store = SlowStore()
    with serving(store=store) as client:
        session_id = create(client, "the")
        with client.websocket_connect(f"/sessions/{session_id}/stream") as socket:
            store.hold()
            socket.send_json({"id": 1, **frame})
            until(store.begun.is_set)
            socket.send_json({"id": 2, "type": "cancel", "target": 1})
            while (told := socket.receive_json())["id"] == 1:
                assert told["type"] == "token"
            assert told == {"id": 2, "type": "cancel", "target": 1, "cancelled": True}
            store.may.set()
            while (answer := socket.receive_json())["type"] == "token":
                pass
            assert (answer["id"], answer["type"]) == (1, last)
            # What was done cannot be given up.
            socket.send_json({"id": 3, "type": "cancel", "target": 1})
            assert socket.receive_json()["cancelled"] is False
        assert client.get(f"/sessions/{session_id}").json()["position"] == answer["position"] > 1


@pytest.mark.anyio
async def test_a_frame_given_up_before_it_began_is_answered_and_not_done() -> None:
    class Socket:
        sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def send_json(self, content: dict[str, Any]) -> None:
            self.sent.put_nowait(content)

    app = make_app()
    async with starting(app) as client:
        await ready(client)
        session_id = (await client.post("/sessions", json={"text": "the"})).json()["session_id"]
        socket: Any = Socket()
        talk = Conversation(socket, session_id, app.state.lifecycle.sessions, app.state.logger)
        # As from one packet: nothing else runs between the two.
        await talk.take('{"id": 1, "type": "append", "text": "harbour"}')
        await talk.take('{"id": 2, "type": "cancel", "target": 1}')
        async with asyncio.timeout(20):
            answers = [await socket.sent.get() for _ in range(2)]
        assert {"id": 1, "type": "cancelled"} in answers
        assert {"id": 2, "type": "cancel", "target": 1, "cancelled": True} in answers
        assert (await client.get(f"/sessions/{session_id}")).json()["position"] == 1


@pytest.mark.anyio
async def test_a_client_that_leaves_once_its_change_is_with_the_store_leaves_the_session_moved_and_free() -> None:
    store = SlowStore()
    async with starting(make_app(store=store)) as client:
        await ready(client)
        session_id = (await client.post("/sessions", json={"text": "the"})).json()["session_id"]
        store.hold()
        leaving = asyncio.create_task(client.post(f"/sessions/{session_id}/append", json={"text": "harbour"}))
        await asyncio.to_thread(store.begun.wait, 20)
        leaving.cancel()
        following = asyncio.create_task(client.post(f"/sessions/{session_id}/append", json={"text": "is"}))
        await asyncio.sleep(0.01)
        assert not following.done()
        store.may.set()
        assert (await following).json()["position"] == 3
