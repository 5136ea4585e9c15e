"""Long texts appended: made beside the event loop, answered as short ones, and kept under a key within a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.reader import LONG
from app.scored_text import ScoredText
from app.sessions import records, service, typed
from app.sessions.records import MOST_KEPT_TOKENS
from tests.app.fakes import fake_model
from tests.app.memory_store import MemoryStore
from tests.app.personal import personal
from tests.app.serving import serving
from tests.app.talking import append, create, post
from tests.app.test_hostile_requests import IndifferentEngine


@pytest.fixture(scope="module")
def client(store: MemoryStore, _default_settings: None) -> Iterator[TestClient]:
    """A service whose engine reads a long text in a moment."""
    with serving(fake_model(build=IndifferentEngine), store=store) as ready:
        yield ready


def on_threads(patch: pytest.MonkeyPatch, owner: Any, name: str) -> set[int]:
    """The threads on which a function runs from now on."""
    found: set[int] = set()
    plain: Callable[..., Any] = getattr(owner, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        found.add(threading.get_ident())
        return plain(*arguments, **named)

    patch.setattr(owner, name, noted)
    return found


@pytest.mark.parametrize("is_personal", [False, True])
def test_what_is_made_of_a_long_text_is_made_beside_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, is_personal: bool
) -> None:
    session_id = personal(client, "the") if is_personal else create(client, "the")
    path = f"/sessions/{session_id}/append"
    loop = on_threads(monkeypatch, service, "moved_to")
    made = [
        on_threads(monkeypatch, ScoredText, "token_scores"),
        on_threads(monkeypatch, service.SessionService, "_answer"),
        on_threads(monkeypatch, service, "kept_answer"),
    ]
    if is_personal:
        made.append(on_threads(monkeypatch, typed, "own_words_of"))
    long = "harbour is " * (LONG // 2 + 1)
    answer = post(client, path, key=f"long {is_personal}".replace(" ", "-"), text=long)
    assert [token["token"] for token in answer["tokens"][:3]] == ["harbour", "is", "harbour"]
    assert len(answer["tokens"]) == answer["position"] - 1 == LONG + 2
    assert len(loop) == 1
    assert all(threads.isdisjoint(loop) for threads in made)
    append(client, session_id, "small")
    assert all(threads.issuperset(loop) for threads in made)


def test_an_answer_too_large_to_be_kept_is_refused_before_anything_is_read_and_the_same_in_parts_is_not(
    client: TestClient, store: MemoryStore
) -> None:
    session_id = create(client, "the")
    path, answers = f"/sessions/{session_id}/append", dict(store.answers)
    too_long = "harbour " * (MOST_KEPT_TOKENS + 1)
    problem = post(client, path, 422, key="whole", text=too_long)
    assert problem["errors"][0]["pointer"] == "#/text"
    assert f"{MOST_KEPT_TOKENS + 1} tokens" in problem["detail"]
    assert "append the text in parts, or without a key" in problem["detail"]
    with client.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        socket.send_json({"id": 1, "type": "append", "text": too_long, "idempotency_key": "whole"})
        assert socket.receive_json()["status"] == 422
    assert client.get(f"/sessions/{session_id}").json()["position"] == 1
    assert store.answers == answers
    most = post(client, path, key="most", text="harbour " * MOST_KEPT_TOKENS)
    assert post(client, path, key="most", text="harbour " * MOST_KEPT_TOKENS) == most
    assert append(client, session_id, too_long)["position"] == 1 + MOST_KEPT_TOKENS + MOST_KEPT_TOKENS + 1
    assert len(store.answers["most"].body) < 2_500_000


def test_a_key_whose_text_was_refused_is_free(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_KEPT_TOKENS", 2)
    path = f"/sessions/{create(client, 'the')}/append"
    post(client, path, 422, key="free", text="harbour is small")
    assert post(client, path, key="free", text="harbour is")["position"] == 3
