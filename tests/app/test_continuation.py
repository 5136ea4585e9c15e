"""The model writes on: what is drawn, how it comes, and where the session stands after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import NumpyEngine, fake_model, small_vocabulary
from tests.app.memory_store import MemoryStore
from tests.app.serving import serving
from tests.app.talking import append, close_to, create, post


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def sessions(store: MemoryStore, _default_settings: None) -> Iterator[TestClient]:
    """A ready service whose sessions are in `store`."""
    with serving(store=store) as client:
        yield client


def test_words_are_written_on_the_same_for_a_seed_and_read_as_if_they_had_been_typed(sessions: TestClient) -> None:
    session_id = create(sessions, "the harbour")
    fork = sessions.post(f"/sessions/{session_id}/fork").json()["session_id"]
    written = post(sessions, f"/sessions/{session_id}/continue", max_tokens=8, seed=7)
    assert (written["seed"], written["finish_reason"], written["position"]) == (7, "length", 10)
    assert "".join(token["text"] for token in written["tokens"]) == written["text"]
    assert "<unk>" not in [token["token"] for token in written["tokens"]]
    vocabulary = small_vocabulary()
    ids = [vocabulary.id_of(token["token"]) for token in written["tokens"]]
    before = vocabulary.tokenise("the harbour").ids.tolist()
    assert vocabulary.detokenise([*before, *ids]) == "the harbour" + written["text"]
    again = post(sessions, f"/sessions/{fork}/continue", max_tokens=8, seed=7)
    assert again["tokens"] == written["tokens"]
    typed = create(sessions)
    tokens = " ".join("\n" if token["token"] == "<eos>" else token["token"] for token in written["tokens"])
    read = append(sessions, typed, f"the harbour {tokens}")
    assert read["position"] == 10
    for found, token in zip(read["tokens"][2:], written["tokens"], strict=True):
        assert found["log_probability"] == pytest.approx(token["log_probability"], abs=1e-5)
    close_to(append(sessions, session_id)["predictions"], read["predictions"])


def test_temperature_zero_writes_the_likeliest_words(sessions: TestClient) -> None:
    session_id = create(sessions, "the harbour")
    likeliest = append(sessions, session_id, k=1, include_special=True)["predictions"][0]["token"]
    written = post(sessions, f"/sessions/{session_id}/continue", max_tokens=1, temperature=0, include_unk=True)
    assert written["tokens"][0]["token"] == likeliest


def test_writing_ends_before_a_stop_word_which_is_not_read(sessions: TestClient) -> None:
    session_id = create(sessions, "the harbour")
    free = post(sessions, f"/sessions/{session_id}/continue", max_tokens=30, seed=3, commit=False)
    assert (free["committed"], free["position"]) == (False, 2)
    stop = free["tokens"][5]["token"]
    first = [token["token"] for token in free["tokens"]].index(stop)
    word = {"<eos>": "\n", "@-@": "-", "@,@": ",", "@.@": "."}.get(stop, stop)
    stopped = post(sessions, f"/sessions/{session_id}/continue", max_tokens=30, seed=3, stop=[word])
    assert stopped["finish_reason"] == "stop"
    assert stopped["position"] <= 2 + first
    assert stop not in [token["token"] for token in stopped["tokens"]]
    problem = post(sessions, f"/sessions/{session_id}/continue", 422, stop=["unheard-of"])
    assert problem["errors"][0]["pointer"] == "#/stop/0"


def test_a_session_that_does_not_commit_stays_where_it_is(sessions: TestClient, store: MemoryStore) -> None:
    session_id = create(sessions, "the harbour")
    before = store.records[session_id]
    assert len(post(sessions, f"/sessions/{session_id}/continue", max_tokens=4, commit=False)["tokens"]) == 4
    assert store.records[session_id].state == before.state
    assert store.records[session_id].position == 2


def events(response: Any) -> list[tuple[str, dict[str, Any]]]:
    """Kind and data of server-sent events."""
    found = []
    for block in response.text.strip().split("\n\n"):
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_stream_is_the_answer_in_pieces(sessions: TestClient, store: MemoryStore) -> None:
    session_id = create(sessions, "the harbour")
    fork = sessions.post(f"/sessions/{session_id}/fork").json()["session_id"]
    path = f"/sessions/{session_id}/continue"
    whole = post(sessions, f"/sessions/{fork}/continue", max_tokens=6, seed=11)
    headers = {"Idempotency-Key": "stream"}
    response = sessions.post(path, json={"max_tokens": 6, "seed": 11, "stream": True}, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    *tokens, (last, done) = events(response)
    assert [kind for kind, _ in tokens] == ["token"] * 6
    assert [data for _, data in tokens] == whole["tokens"]
    assert (last, done["position"], done["seed"], done["finish_reason"]) == ("done", 8, 11, "length")
    assert store.records[session_id].position == 8
    again = sessions.post(path, json={"max_tokens": 6, "seed": 11, "stream": True}, headers=headers)
    assert events(again) == [*tokens, (last, done)]


def test_what_can_be_refused_is_refused_before_a_stream_begins(sessions: TestClient) -> None:
    assert post(sessions, "/sessions/nowhere/continue", 404, stream=True)["status"] == 404
    session_id = create(sessions, "the")
    problem = post(sessions, f"/sessions/{session_id}/continue", 409, stream=True, expected_position=5)
    assert problem["position"] == 1


def test_a_stream_that_fails_on_the_way_ends_with_an_error_and_the_session_stays(store: MemoryStore) -> None:
    engines: list[NumpyEngine] = []

    def build(size: int) -> NumpyEngine:
        engines.append(NumpyEngine(size))
        return engines[0]

    steps = 0

    def fail_at_the_fourth() -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise MemoryError

    with serving(fake_model(build=build), store=store) as client:
        session_id = create(client, "the")
        engines[0].before = fail_at_the_fourth
        response = client.post(f"/sessions/{session_id}/continue", json={"max_tokens": 9, "stream": True})
        *tokens, (last, problem) = events(response)
        assert {kind for kind, _ in tokens} == {"token"}
        assert (last, problem["status"]) == ("error", 500)
        assert client.get(f"/sessions/{session_id}").json()["position"] == 1


def test_what_is_written_from_nothing_does_not_begin_with_a_lines_end() -> None:
    """The engine holds an end likelier than all else, everywhere."""

    def eager_to_end(size: int) -> NumpyEngine:
        engine = NumpyEngine(size)
        engine.bias[small_vocabulary().eos_id] = 50
        return engine

    with serving(fake_model(build=eager_to_end)) as client:
        likeliest = client.post("/predict", json={"text": "", "k": 1}).json()["predictions"][0]["word"]
        for fields in ({"temperature": 0}, {"temperature": 0, "include_unk": True, "stop": ["\n"]}):
            written = post(client, f"/sessions/{create(client)}/continue", max_tokens=2, commit=False, **fields)
            assert written["text"].rstrip("\n") == likeliest
        completed = client.post("/v1/completions", json={"prompt": "", "temperature": 0, "max_tokens": 2}).json()
        assert completed["choices"][0]["text"] == likeliest
        for text in ("the", "\n"):
            path = f"/sessions/{create(client, text)}/continue"
            assert post(client, path, max_tokens=1, temperature=0)["text"] == "\n"
            completed = client.post("/v1/completions", json={"prompt": text, "temperature": 0}).json()
            assert completed["choices"][0]["text"] == ""
