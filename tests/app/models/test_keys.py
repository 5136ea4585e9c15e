"""Keys and several models at once: over WebSockets and in metrics, nothing of one holder's is another's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from model.bundle import open_bundle
from tests.app.access.keys import Key, key_file, make_key, write_keys
from tests.app.models.bundles import House, likeliest, shown
from tests.app.models.test_names import TEXT, sha256
from tests.app.numbers import number, numbers
from tests.app.processes import served
from tests.app.serving import until

ALICE, BOB, SCRAPER = make_key("alice"), make_key("bob"), make_key("scraper")
SCRAPES = {"scraper": {"routes": '["metrics"]'}}
FRAMES: list[dict[str, Any]] = [
    {"type": "append", "text": "the"}, {"type": "append", "text": "the", "idempotency_key": "once"},
    {"type": "rewind", "position": 0}, {"type": "continue", "max_tokens": 2, "seed": 1},
    {"type": "continue", "max_tokens": 2, "seed": 1, "stream": True},
]  # fmt: skip


@contextmanager
def guarded(house: House, **settings: Any) -> Iterator[TestClient]:
    """A service of both models that needs a key."""
    settings = settings or {"keys": key_file(ALICE, BOB, SCRAPER, **SCRAPES)}
    with TestClient(house.app(**settings)) as client:
        until(lambda: client.get("/health/ready").status_code == 200)
        until(lambda: len(ask(client, "GET", "/model", ALICE).json().get("models", ())) == len(TEXT))
        yield client


def ask(client: TestClient, method: str, path: str, key: Key, **fields: Any) -> Any:
    return client.request(method, path, headers=key.headers, json=fields or None)


def create(client: TestClient, key: Key, model: str, text: str = "the") -> str:
    answer = ask(client, "POST", "/sessions", key, text=text, model=model)
    assert answer.status_code == 201, answer.text
    name: str = answer.json()["session_id"]
    return name


def talk(client: TestClient, key: Key, session: str, *frames: dict[str, Any]) -> list[dict[str, Any]]:
    """What frames are answered, one after the other, without what is each request's own."""
    answers = []
    with client.websocket_connect(f"/sessions/{session}/stream", subprotocols=key.subprotocols) as socket:
        for number_, frame in enumerate(frames):
            socket.send_json({"id": number_, **frame})
            while (answer := socket.receive_json())["type"] == "token":
                pass
            answers.append({name: value for name, value in answer.items() if name != "request_id"})
    return answers


def test_each_holders_session_is_answered_over_a_websocket_by_its_own_model(house: House) -> None:
    with guarded(house) as client:
        for key in (ALICE, BOB):
            for name, text in TEXT.items():
                session = create(client, key, name)
                [answer] = talk(client, key, session, {"type": "append", "text": text.split()[1]})
                assert (answer["session_id"], answer["model"]["name"]) == (session, name)
                assert answer["model"]["sha256"] == sha256(house, name)
                assert shown(answer) == likeliest(house.folder / name, text)


def test_another_keys_session_is_not_there_over_a_websocket_whichever_model_it_is_of(house: House) -> None:
    with guarded(house) as client:
        for model in TEXT:
            session = create(client, ALICE, model)
            before = ask(client, "GET", f"/sessions/{session}", ALICE).json()
            unknown = talk(client, BOB, "x" * len(session), *FRAMES)
            assert {answer["status"] for answer in unknown} == {404}
            for name in (session, f"alice {session}", f"alice%20{session}"):
                assert talk(client, BOB, name, *FRAMES) == unknown
            assert not [word for word in (session, model, "alice") if word in json.dumps(unknown)]
            assert ask(client, "GET", f"/sessions/{session}", ALICE).json() == before


def test_another_keys_session_of_a_model_that_is_gone_is_answered_as_one_that_there_never_was(house: House) -> None:
    with guarded(house) as client:
        session = create(client, ALICE, "hills")
    house.name("sea", sea="sea", hills="sea")
    with guarded(house) as client:
        frame = {"type": "append", "text": "paths"}
        [own] = talk(client, ALICE, session, frame)
        assert (own["status"], own["detail"][:42]) == (
            409,
            f"the session belongs to the bundle {sha256(house, 'hills')[:8]}",
        )
        assert talk(client, BOB, session, frame) == talk(client, BOB, "x" * len(session), frame)


def test_a_frame_that_two_holders_send_with_one_idempotency_key_is_two(house: House) -> None:
    frame = {"type": "append", "text": "the", "idempotency_key": "once"}
    with guarded(house) as client:
        sessions = {key: create(client, key, model) for key, model in ((ALICE, "sea"), (BOB, "hills"))}
        for key, session in sessions.items():
            first, again = (talk(client, key, session, frame) for _ in range(2))
            assert first == again
            assert (first[0]["session_id"], first[0]["position"]) == (session, 2)


def test_what_one_key_read_is_read_again_for_another_by_every_model(house: House) -> None:
    def read(key: Key, model: str) -> float:
        """Tokens that a model's engine read for a text."""
        before = number(client, "pru_tokens_read_total", model=model)
        assert ask(client, "POST", "/predict", key, text=f"{TEXT[model]} , the", model=model).status_code == 200
        return number(client, "pru_tokens_read_total", model=model) - before

    with guarded(house) as client:
        for model in TEXT:
            assert [read(key, model) for key in (ALICE, ALICE, BOB, BOB)] == [4, 0, 4, 0]


def test_a_quota_is_one_for_all_models_and_frames(house: House) -> None:
    keys = key_file(ALICE, BOB, alice={"tokens_per_minute": 6})
    with guarded(house, keys=keys) as client:
        session = create(client, ALICE, "hills")
        assert ask(client, "POST", "/predict", ALICE, text="the boats that", model="sea").status_code == 200
        taken, refused = talk(client, ALICE, session, *[{"type": "append", "text": "paths lead"}] * 2)
        assert (taken["position"], refused["status"]) == (3, 429)
        for model in TEXT:
            assert ask(client, "POST", "/predict", ALICE, text="the", model=model).status_code == 429
            assert ask(client, "POST", "/predict", BOB, text="the", model=model).status_code == 200


def test_a_websocket_stays_on_its_bundle_over_a_swap_and_ends_with_its_key(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access.keyring.POLL_SECONDS", 0.02)
    path = write_keys(house.folder / "keys.toml", key_file(ALICE, BOB))
    old, new = sha256(house, "sea"), house.bundle("sea-2", version=2)
    with guarded(house, keys_file=path) as client:
        session = create(client, ALICE, "sea")
        with client.websocket_connect(f"/sessions/{session}/stream", subprotocols=ALICE.subprotocols) as socket:

            def append(text: str) -> dict[str, Any]:
                socket.send_json({"id": 1, "type": "append", "text": text})
                answer: dict[str, Any] = socket.receive_json()
                return answer

            assert append("boats")["model"]["sha256"] == old
            house.name("sea", sea="sea-2", hills="hills")
            until(lambda: ask(client, "GET", "/model", BOB).json()["model"]["sha256"] == new)
            answer = append("that")
            assert (answer["model"]["sha256"], answer["position"]) == (old, 3)
            assert shown(answer) == likeliest(house.folder / "sea", "the boats that")
            write_keys(path, key_file(BOB))
            until(lambda: ask(client, "GET", "/model", ALICE).status_code == 401)
            assert append("leave")["status"] == 401
        [refused] = talk(client, BOB, session, {"type": "append", "text": "leave"})
        assert refused["status"] == 404


def test_metrics_name_no_holder_no_session_and_no_key(house: House) -> None:
    with guarded(house) as client:
        sessions = [create(client, key, model) for key in (ALICE, BOB) for model in TEXT]
        for key in (ALICE, BOB):
            for session in sessions:
                talk(client, key, session, *FRAMES)
                ask(client, "GET", f"/sessions/{session}", key)
        for headers in ({}, ALICE.headers, {"Accept": "application/openmetrics-text"}):
            text = client.get("/metrics", headers=headers).text
            for word in (*sessions, "alice", "bob", ALICE.text, ALICE.line[:64]):
                assert word not in text
        values = {(name, value) for labels in numbers(client) for name, value in labels[1]}
        assert {value for name, value in values if name == "model"} == TEXT.keys()
        assert {value for name, value in values if name == "route"} == {
            "/health/ready", "/metrics", "/model", "/sessions", "/sessions/{session_id}",
        }  # fmt: skip
        assert {name for name, _ in values} == {
            "method", "route", "status", "le", "model", "found", "operation", "name", "sha256", "engine", "precision",
        }  # fmt: skip
        asked = number(client, "pru_key_requests_total")
        ask(client, "GET", "/model", BOB)
        assert number(client, "pru_key_requests_total") == asked + 1


def test_what_each_holder_asks_is_told_to_a_key_for_metrics_and_to_no_other(house: House) -> None:
    keys = key_file(ALICE, BOB, SCRAPER, **SCRAPES)
    with guarded(house, keys=keys, open_routes="probes") as client:
        for model in TEXT:
            assert ask(client, "POST", "/predict", ALICE, text="the", model=model).status_code == 200
        assert client.get("/metrics").status_code == 401
        told = ask(client, "GET", "/metrics", SCRAPER).text
        assert 'pru_key_tokens_total{key="alice"} 2.0' in told
        hidden = ask(client, "GET", "/metrics", BOB).text
        assert "pru_key_tokens_total 2.0" in hidden
        assert not re.search("alice|bob|scraper", hidden)
        kinds = [re.findall("^# TYPE .* (?:counter|gauge|histogram)$", text, re.M) for text in (told, hidden)]
        assert [kind for kind in kinds[0] if "_created " not in kind] == [
            it for it in kinds[1] if "_created " not in it
        ]


def test_several_workers_tell_no_more_than_one() -> None:
    keys = key_file(ALICE, BOB, SCRAPER, **SCRAPES)
    with served("-m", "app", keys=keys, workers="2", threads="1", open_routes="probes") as service:
        until(lambda: len(service.events("ready")) == 2)
        for _ in range(10):
            fields = {"text": "the film"}
            assert httpx2.post(f"{service.url}/predict", json=fields, headers=ALICE.headers).status_code == 200

        def scrape(key: Key) -> str:
            return httpx2.get(f"{service.url}/metrics", headers=key.headers).text

        assert 'pru_key_tokens_total{key="alice"} 20.0' in scrape(SCRAPER)
        assert "pru_key_tokens_total 20.0" in scrape(BOB)
        assert "alice" not in scrape(BOB)


def test_no_log_line_of_a_talk_has_a_session_a_key_or_a_word_of_it(house: House) -> None:
    with guarded(house) as client:
        sessions = [create(client, ALICE, model) for model in TEXT]
        for session in sessions:
            talk(client, BOB, session, {"type": "append", "text": "quetzalcoatl"})
            talk(client, ALICE, session, {"type": "append", "text": "quetzalcoatl"})
    for word in (*sessions, "quetzalcoatl", ALICE.text, BOB.text, ALICE.line[:64]):
        assert word not in house.logs.getvalue()
    assert open_bundle(house.folder / "sea").sha256 in house.logs.getvalue()
