"""Sessions over HTTP: they stand where their text leads, they move once or not at all, and they end."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StoreError
from app.sessions.cursor import FURTHEST
from tests.app.fakes import CORPUS, Gate, LogLines, NumpyEngine, fake_model
from tests.app.memory_store import MemoryStore
from tests.app.serving import make_app, ready, serving, starting
from tests.app.talking import append, close_to, create, post

WORDS = " ".join(CORPUS).split()


def test_a_session_tells_where_it_stands_and_when_it_ends(sessions: TestClient) -> None:
    answer = post(sessions, "/sessions", 201, text="the harbour is\nsmall", ttl=100)
    assert answer["position"] == 5
    assert answer["earliest_position"] == 0
    assert answer["model"]["name"] == "tiny"
    assert sessions.get(f"/sessions/{answer['session_id']}").json() == answer


def test_what_is_appended_is_scored_as_in_the_whole_text_and_predicted_from_as_by_predict(sessions: TestClient) -> None:
    session_id = create(sessions, "the harbour")
    answer = append(sessions, session_id, "is small , but\nthe boats", k=3)
    whole = post(sessions, "/perplexity", text="is small , but\nthe boats", context="the harbour", return_tokens=True)
    expected = whole["results"][0]["tokens"][:-1]
    assert [token["token"] for token in answer["tokens"]] == [token["token"] for token in expected]
    assert [token["start"] for token in answer["tokens"]] == [token["start"] for token in expected]
    assert [token["rank"] for token in answer["tokens"]] == [token["rank"] for token in expected]
    for found, other in zip(answer["tokens"], expected, strict=True):
        assert found["log_probability"] == pytest.approx(other["log_probability"], abs=1e-5)
    assert answer["position"] == 2 + len(expected)
    predicted = post(sessions, "/predict", text="the harbour is small , but\nthe boats", k=3)["predictions"]
    close_to(answer["predictions"], predicted)


def test_an_empty_text_only_asks(sessions: TestClient, store: MemoryStore) -> None:
    session_id = create(sessions, "the harbour", ttl=50)
    state = store.records[session_id].state
    answer = append(sessions, session_id, prefix="bo", k=2)
    assert (answer["tokens"], answer["position"]) == ([], 2)
    assert [prediction["word"] for prediction in answer["predictions"]] == ["boats", "boat"] or [
        prediction["word"] for prediction in answer["predictions"]
    ] == ["boat", "boats"]
    assert store.records[session_id].state == state


@settings(max_examples=20, deadline=None)
@given(
    words=st.lists(st.sampled_from([*WORDS, "\n", "unheard-of"]), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    back=st.integers(0, 64),
)
def test_any_cuts_and_retyping_give_the_state_and_scores_of_the_text_read_at_once(
    sessions: TestClient, words: list[str], cuts: list[int], back: int
) -> None:
    whole = create(sessions)
    at_once = append(sessions, whole, " ".join(words))
    session_id, tokens = create(sessions), []
    edges = sorted({0, len(words), *(min(cut, len(words)) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        tokens += append(sessions, session_id, " ".join(words[start:stop]))["tokens"]
    end = append(sessions, session_id)
    close_to(
        [(t["token"], t["log_probability"], t["rank"]) for t in tokens],
        [(t["token"], t["log_probability"], t["rank"]) for t in at_once["tokens"]],
    )
    close_to(end["predictions"], at_once["predictions"])
    position = max(0, end["position"] - back)
    assert post(sessions, f"/sessions/{session_id}/rewind", position=position)["position"] == position
    kept = [token["token"] for token in tokens[:position]]
    again = append(sessions, session_id)
    fresh = append(sessions, create(sessions, " ".join("\n" if token == "<eos>" else token for token in kept)))
    close_to(again["predictions"], fresh["predictions"])


def test_a_stale_expected_position_is_409_carries_the_position_and_changes_nothing(
    sessions: TestClient, store: MemoryStore
) -> None:
    session_id = create(sessions, "the harbour is")
    before = store.records[session_id]
    problem = post(sessions, f"/sessions/{session_id}/append", 409, text="small", expected_position=2)
    assert problem["position"] == 3
    assert store.records[session_id] == before
    assert append(sessions, session_id, "small", expected_position=3)["position"] == 4


def test_rewinding_further_than_is_remembered_is_refused_and_says_how_far(sessions: TestClient) -> None:
    session_id = create(sessions, "the " * 100)
    problem = post(sessions, f"/sessions/{session_id}/rewind", 422, position=35)
    assert "from 100 to 36" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "#/position"
    assert post(sessions, f"/sessions/{session_id}/rewind", 422, position=101)["status"] == 422
    assert post(sessions, f"/sessions/{session_id}/rewind", position=36)["position"] == 36


def test_a_fork_goes_its_own_way(sessions: TestClient) -> None:
    session_id = create(sessions, "the harbour")
    fork = sessions.post(f"/sessions/{session_id}/fork").json()
    assert fork["session_id"] != session_id
    assert fork["position"] == 2
    one, other = append(sessions, session_id, "is"), append(sessions, fork["session_id"], "is")
    assert one["predictions"] == other["predictions"]
    append(sessions, session_id, "small")
    assert append(sessions, fork["session_id"])["position"] == 3


def test_a_session_taken_along_goes_on_as_it_would_have(sessions: TestClient) -> None:
    session_id = create(sessions, "the harbour is small , but the boats", ttl=77)
    blob = sessions.get(f"/sessions/{session_id}/export")
    assert blob.headers["content-type"] == "application/octet-stream"
    with serving() as elsewhere:
        headers = {"Content-Type": "application/octet-stream"}
        response = elsewhere.post("/sessions/import", content=blob.content, headers=headers)
        assert response.status_code == 201
        imported = response.json()["session_id"]
        close_to(
            append(elsewhere, imported, "leave")["predictions"], append(sessions, session_id, "leave")["predictions"]
        )
        assert post(elsewhere, f"/sessions/{imported}/rewind", position=3)["position"] == 3
        refused = elsewhere.post("/sessions/import", content=blob.content[:-1], headers=headers)
        assert refused.status_code == 422
        assert "cut or altered" in refused.json()["detail"]
        assert elsewhere.post("/sessions/import", content=blob.content).status_code == 415


@pytest.mark.parametrize("is_personal", [False, True])
def test_a_session_at_the_furthest_place_is_taken_along_and_goes_no_further(
    sessions: TestClient, store: MemoryStore, is_personal: bool
) -> None:
    session_id = create(sessions, "the harbour is", personal=is_personal)
    record = store.records[session_id]
    far = dataclasses.replace(record, position=FURTHEST - 1, anchor_position=FURTHEST - 4)
    store.records[session_id] = far
    path = f"/sessions/{session_id}"
    problem = post(sessions, f"{path}/append", 422, text="small ,")
    assert (problem["errors"][0]["pointer"], f"as far as {FURTHEST}" in problem["detail"]) == ("#/text", True)
    assert post(sessions, f"{path}/continue", 422, max_tokens=2)["errors"][0]["pointer"] == "#/max_tokens"
    assert store.records[session_id] == far
    assert append(sessions, session_id, "small")["position"] == FURTHEST
    blob = sessions.get(f"{path}/export").content
    response = sessions.post("/sessions/import", content=blob, headers={"Content-Type": "application/octet-stream"})
    moved = response.json()["session_id"]
    assert post(sessions, f"/sessions/{moved}/rewind", position=FURTHEST - 2)["position"] == FURTHEST - 2


def test_a_session_of_another_bundle_is_409_that_says_so(sessions: TestClient, store: MemoryStore) -> None:
    session_id = create(sessions, "the harbour")
    store.records[session_id] = dataclasses.replace(store.records[session_id], bundle="f" * 64)
    problem = post(sessions, f"/sessions/{session_id}/append", 409, text="is")
    assert "belongs to the bundle ffffffffffff" in problem["detail"]
    assert "position" not in problem


@pytest.mark.parametrize("path", ["append", "rewind", "continue"])
def test_a_session_that_is_not_there_is_404(sessions: TestClient, path: str) -> None:
    fields: dict[str, Any] = {"position": 0} if path == "rewind" else {}
    assert "make a new one" in post(sessions, f"/sessions/nowhere/{path}", 404, **fields)["detail"]
    assert sessions.get("/sessions/nowhere").status_code == 404
    assert sessions.delete("/sessions/nowhere").status_code == 404
    assert sessions.get("/sessions/nowhere/export").status_code == 404
    assert sessions.post("/sessions/nowhere/fork").status_code == 404


def test_a_method_that_a_path_has_not_is_405_and_names_those_it_has(sessions: TestClient) -> None:
    response = sessions.put("/sessions/nowhere")
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET")
    assert sessions.get("/sessions").headers["allow"] == "POST"


def test_a_session_ends_when_it_is_deleted_and_when_it_was_not_used_for_long() -> None:
    clock = [1000.0]
    store = MemoryStore(lambda: clock[0])
    with serving(store=store) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.sessions.records.time.time", lambda: clock[0])
        gone = create(client, "the")
        assert client.delete(f"/sessions/{gone}").status_code == 204
        assert client.get(f"/sessions/{gone}").status_code == 404
        session_id = create(client, "the", ttl=60)
        clock[0] += 50
        append(client, session_id)
        clock[0] += 50
        append(client, session_id, "harbour")
        clock[0] += 61
        assert client.get(f"/sessions/{session_id}").status_code == 404


def test_the_same_key_and_body_replays_the_answer_and_another_body_is_422(
    sessions: TestClient, store: MemoryStore
) -> None:
    one = post(sessions, "/sessions", 201, key="k1", text="the harbour")
    assert post(sessions, "/sessions", 201, key="k1", text="the harbour") == one
    assert "another request" in post(sessions, "/sessions", 422, key="k1", text="the boats")["detail"]
    path = f"/sessions/{one['session_id']}"
    first = post(sessions, f"{path}/append", key="k2", text="is small")
    assert post(sessions, f"{path}/append", key="k2", text="is small") == first
    assert sessions.get(path).json()["position"] == 4
    assert post(sessions, f"{path}/append", 422, key="k2", text="is")["status"] == 422
    back = post(sessions, f"{path}/rewind", key="k3", position=3)
    append(sessions, one["session_id"], "small , but")
    assert post(sessions, f"{path}/rewind", key="k3", position=3) == back
    fork = sessions.post(f"{path}/fork", headers={"Idempotency-Key": "k4"}).json()
    assert sessions.post(f"{path}/fork", headers={"Idempotency-Key": "k4"}).json() == fork
    written = post(sessions, f"{path}/continue", key="k5", max_tokens=3)
    assert post(sessions, f"{path}/continue", key="k5", max_tokens=3) == written
    assert sessions.get(path).json()["position"] == written["position"]
    for bad in ("", "two words", "x" * 201, "é"):
        response = sessions.post(f"{path}/append", json={}, headers=[(b"Idempotency-Key", bad.encode())])
        assert response.status_code == 422, bad


def test_an_answer_of_another_server_to_the_same_key_is_given(
    sessions: TestClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = create(sessions, "the")
    path = f"/sessions/{session_id}/append"
    first = post(sessions, path, key="race", text="harbour")
    plain = MemoryStore.answer
    asked = 0

    async def at_first_unknown(self: MemoryStore, key: str) -> Any:
        nonlocal asked
        asked += 1
        return None if asked == 1 else await plain(self, key)

    monkeypatch.setattr(MemoryStore, "answer", at_first_unknown)
    assert post(sessions, path, key="race", text="harbour") == first
    assert sessions.get(f"/sessions/{session_id}").json()["position"] == 2


def test_a_change_of_another_server_is_read_again_and_not_lost(
    sessions: TestClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id, other = create(sessions, "the"), create(sessions, "the harbour")
    plain = MemoryStore.replace
    times = 0

    async def overtaken(self: MemoryStore, record: Any, answer: Any = None) -> bool:
        nonlocal times
        times += 1
        if times == 1:
            faster = dataclasses.replace(store.records[other], session_id=session_id, version=record.version)
            store.records[session_id] = faster
        return await plain(self, record, answer)

    monkeypatch.setattr(MemoryStore, "replace", overtaken)
    answer = append(sessions, session_id, "is")
    assert answer["position"] == 3
    close_to(answer["predictions"], append(sessions, create(sessions, "the harbour is"))["predictions"])


def test_a_store_that_fails_is_503_with_its_reason_the_log_has_the_place_and_other_routes_go_on() -> None:
    store, logs = MemoryStore(), LogLines()
    with serving(store=store, logs=logs) as client:
        session_id = create(client, "the")
        store.fail = StoreError("/data/sessions.db", "is full", "make room")
        for response in (
            client.post("/sessions", json={}),
            client.post(f"/sessions/{session_id}/append", json={"text": "harbour"}),
            client.get(f"/sessions/{session_id}"),
            client.delete(f"/sessions/{session_id}"),
        ):
            assert response.status_code == 503
            assert response.json()["detail"] == "the session store is full; try again later"
            assert response.headers["retry-after"] == "1"
        assert post(client, "/predict", text="the")["token_count"] == 1
        store.fail = None
        assert append(client, session_id, "harbour")["position"] == 2
    failed = [(line["operation"], line["reason"]) for line in logs.events("the session store failed")]
    assert failed == [(name, "/data/sessions.db is full; make room") for name in ("create", "load", "load", "delete")]


@pytest.mark.anyio
async def test_appends_to_one_session_take_turns_in_the_order_they_came() -> None:
    gate = Gate()
    async with starting(make_app(fake_model(build=lambda size: NumpyEngine(size, before=gate)))) as client:
        await ready(client)
        session_id = (await client.post("/sessions", json={"text": "the"})).json()["session_id"]
        words = ["harbour", "is", "small", "but", "the", "boats"]
        gate.shut()
        tasks = []
        for word in words:
            tasks.append(asyncio.create_task(client.post(f"/sessions/{session_id}/append", json={"text": word})))
            await asyncio.sleep(0.01)
        gate.open.set()
        answers = [(await task).json() for task in tasks]
    assert [answer["position"] for answer in answers] == [2, 3, 4, 5, 6, 7]
    assert [answer["tokens"][0]["token"] for answer in answers] == words
