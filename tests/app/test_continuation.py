"""The model writes on: what is drawn, how it comes, and where the session stands after it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import NumpyEngine, fake_model, small_vocabulary
from tests.app.memory_store import MemoryStore
from tests.app.serving import serving
from tests.app.talking import append, close_to, create, post


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


def ended(free: dict[str, Any], stops: list[str]) -> list[dict[str, Any]]:
    """The tokens of a continuation that end before the first text to stop before is complete; all where none comes."""
    text = free["text"]
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    ends = itertools.accumulate(len(token["text"]) for token in free["tokens"])
    return [token for token, end in zip(free["tokens"], ends, strict=True) if not found or end <= min(found)[1]]


@pytest.mark.parametrize("is_personal", [False, True])
def test_writing_ends_before_the_word_in_which_a_stop_text_begins_and_the_session_stands_there(
    sessions: TestClient, store: MemoryStore, is_personal: bool
) -> None:
    def fork() -> str:
        session_id: str = sessions.post(f"/sessions/{origin}/fork").json()["session_id"]
        return session_id

    origin = create(sessions, "the harbour", personal=is_personal)
    fields: dict[str, Any] = {"max_tokens": 30, "seed": 49}
    free = post(sessions, f"/sessions/{fork()}/continue", **fields)
    text = free["text"]
    assert len(text) > 60
    assert "\n" in text
    for start in range(0, len(text) - 9, 3):
        for stops in ([text[start : start + 2]], ["unheard-of", text[start : start + 9]]):
            session_id = fork()
            written = post(sessions, f"/sessions/{session_id}/continue", stop=stops, **fields)
            expected = ended(free, stops)
            assert (written["finish_reason"], written["tokens"]) == ("stop", expected)
            assert written["text"] == "".join(token["text"] for token in expected)
            assert not any(stop in written["text"] for stop in stops)
            assert written["position"] == 2 + len(expected)
            # It goes on as one that was told to write so many words and no more.
            other = fork()
            if expected:
                post(sessions, f"/sessions/{other}/continue", max_tokens=len(expected), seed=49)
            assert store.records[session_id].state == store.records[other].state
            assert store.records[session_id].tail == store.records[other].tail
            assert store.records[session_id].anchor == store.records[other].anchor


def test_one_text_to_stop_before_may_be_given_alone_and_streams_and_frames_end_as_the_answer_does(
    sessions: TestClient,
) -> None:
    session_id = create(sessions, "the harbour")
    path, fields = f"/sessions/{session_id}/continue", dict[str, Any](max_tokens=30, seed=3, commit=False)
    free = post(sessions, path, **fields)
    stop = free["text"][20:26]
    whole = post(sessions, path, stop=[stop], **fields)
    assert 0 < len(whole["tokens"]) < 30
    assert post(sessions, path, stop=stop, **fields)["tokens"] == whole["tokens"]
    *tokens, (last, done) = events(sessions.post(path, json={"stop": stop, "stream": True, **fields}))
    assert [data for _, data in tokens] == whole["tokens"]
    assert (last, done["finish_reason"]) == ("done", "stop")
    with sessions.websocket_connect(f"/sessions/{session_id}/stream") as socket:
        socket.send_json({"id": 1, "type": "continue", "stop": stop, **fields})
        assert socket.receive_json()["tokens"] == whole["tokens"]
    # A text that does not come changes nothing.
    assert post(sessions, path, stop="unheard-of", **fields)["tokens"] == free["tokens"]


def test_a_stop_text_far_back_leaves_a_session_that_can_be_rewound_as_ever(
    sessions: TestClient, store: MemoryStore
) -> None:
    origin = create(sessions, "the harbour " * 70)
    forks = [sessions.post(f"/sessions/{origin}/fork").json()["session_id"] for _ in range(3)]
    free = post(sessions, f"/sessions/{forks[0]}/continue", max_tokens=300, seed=5)
    stop = free["text"][-900:]
    told = ended(free, [stop])
    assert 70 < len(told) < 230
    written = post(sessions, f"/sessions/{forks[1]}/continue", max_tokens=300, seed=5, stop=stop)
    assert written["tokens"] == told
    post(sessions, f"/sessions/{forks[2]}/continue", max_tokens=len(told), seed=5)
    assert store.records[forks[1]].anchor == store.records[forks[2]].anchor
    back = written["position"] - 64
    answers = []
    for session_id in forks[1:]:
        post(sessions, f"/sessions/{session_id}/rewind", position=back)
        answers.append(append(sessions, session_id)["predictions"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("stop", ["", [""], ["a"] * 17, 5, ["a" * 1001], "\ud800"])
def test_what_is_no_text_to_stop_before_is_refused(sessions: TestClient, stop: Any) -> None:
    path = f"/sessions/{create(sessions, 'the')}/continue"
    problem = sessions.post(path, content=json.dumps({"stop": stop}), headers={"Content-Type": "application/json"})
    assert problem.status_code == 422
    assert all(error["pointer"].startswith("#/stop") for error in problem.json()["errors"])


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
