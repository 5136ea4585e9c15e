"""What belongs to a key is there for this key alone: sessions, answers to repeated requests, states of texts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.access.caller import ANYBODY, CALLER, Caller, bare, owned
from app.prefix_cache import PrefixCache
from app.sessions import open_store
from benchmarks.redis_server import RedisServer
from tests.app.access.keys import Key, guarded, make_key
from tests.app.fakes import NumpyEngine, fake_model
from tests.app.memory_store import MemoryStore
from tests.app.serving import serving
from tests.redis_server import redis_server

ALICE, BOB, ROTATED = make_key("alice"), make_key("bob"), make_key("alice")


@pytest.fixture(scope="module")
def redis() -> Any:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return server.url
    return f"sqlite:///{tmp_path_factory.mktemp('owners')}/sessions.db"


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    with guarded(ALICE, BOB, ROTATED, store=open_store(address)) as ready:
        yield ready


def create(client: TestClient, key: Key, text: str = "the harbour", **headers: str) -> Any:
    answer = client.post("/sessions", json={"text": text}, headers={**key.headers, **headers})
    assert answer.status_code == 201, answer.text
    return answer.json()


ASKING: dict[str, Callable[[TestClient, str, dict[str, str]], Any]] = {
    "look": lambda client, name, headers: client.get(f"/sessions/{name}", headers=headers),
    "delete": lambda client, name, headers: client.delete(f"/sessions/{name}", headers=headers),
    "append": lambda client, name, headers: client.post(
        f"/sessions/{name}/append", json={"text": "is"}, headers=headers
    ),
    "rewind": lambda client, name, headers: client.post(
        f"/sessions/{name}/rewind", json={"position": 0}, headers=headers
    ),
    "fork": lambda client, name, headers: client.post(f"/sessions/{name}/fork", headers=headers),
    "continue": lambda client, name, headers: client.post(
        f"/sessions/{name}/continue", json={"max_tokens": 1}, headers=headers
    ),
    "stream": lambda client, name, headers: client.post(
        f"/sessions/{name}/continue", json={"max_tokens": 1, "stream": True}, headers=headers
    ),
    "export": lambda client, name, headers: client.get(f"/sessions/{name}/export", headers=headers),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING.keys())
def test_another_keys_session_is_answered_as_one_that_there_never_was(client: TestClient, ask: Any) -> None:
    session = create(client, ALICE)
    unknown = "x" * len(session["session_id"])
    answers = [
        ask(client, name, {**BOB.headers, "X-Request-Id": "same"})
        for name in (
            session["session_id"], unknown, f"alice {session['session_id']}", f"alice%20{session['session_id']}",
        )
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert {tuple(answer.headers.items()) for answer in answers} == {tuple(answers[0].headers.items())}
    standing = client.get(f"/sessions/{session['session_id']}", headers=ALICE.headers).json()
    assert standing == {**session, "expires_at": standing["expires_at"]}


def test_another_keys_session_is_not_there_over_websocket_either(client: TestClient) -> None:
    session = create(client, ALICE)["session_id"]
    frames: list[dict[str, Any]] = [
        {"type": "append", "text": "is"}, {"type": "rewind", "position": 0}, {"type": "continue", "max_tokens": 1},
        {"type": "continue", "max_tokens": 1, "stream": True},
    ]  # fmt: skip
    with client.websocket_connect(f"/sessions/{session}/stream", subprotocols=BOB.subprotocols) as socket:
        for number, frame in enumerate(frames):
            socket.send_json({"id": number, **frame})
            answer = socket.receive_json()
            assert (answer["id"], answer["status"]) == (number, 404)
    assert client.get(f"/sessions/{session}", headers=ALICE.headers).json()["position"] == 2


def test_the_store_is_asked_the_same_for_anothers_session_and_an_unknown_one() -> None:
    class Counting(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        async def load(self, session_id: str) -> Any:
            self.calls.append(f"load {len(session_id)}")
            return await super().load(session_id)

    store = Counting()
    with guarded(ALICE, BOB, store=store) as client:
        session = create(client, ALICE)["session_id"]
        store.calls.clear()
        for name in (session, "x" * len(session)):
            ASKING["append"](client, name, BOB.headers)
            ASKING["export"](client, name, BOB.headers)
    assert store.calls[:2] == store.calls[2:]
    assert len(store.calls) == 4


def test_every_key_of_a_name_has_its_sessions(client: TestClient) -> None:
    session = create(client, ALICE)["session_id"]
    answer = client.post(f"/sessions/{session}/append", json={"text": "is"}, headers=ROTATED.headers)
    assert (answer.status_code, answer.json()["session_id"], answer.json()["position"]) == (200, session, 3)


def test_the_same_idempotency_key_of_two_callers_is_two(client: TestClient) -> None:
    own = {"Idempotency-Key": f"order:1 {id(client)}".replace(" ", "-")}
    first, second = create(client, ALICE, **own), create(client, BOB, **own)
    assert first["session_id"] != second["session_id"]
    assert create(client, ALICE, **own) == first
    assert create(client, ROTATED, **own) == first
    # With another body it is no conflict with what another sent.
    assert create(client, BOB, "the harbour", **own) == second
    with client.websocket_connect(f"/sessions/{second['session_id']}/stream", subprotocols=BOB.subprotocols) as socket:
        frame = {"id": 1, "type": "append", "text": "is", "idempotency_key": f"frame-{id(client)}"}
        socket.send_json(frame)
        assert socket.receive_json()["position"] == 3
    with client.websocket_connect(f"/sessions/{first['session_id']}/stream", subprotocols=ALICE.subprotocols) as socket:
        socket.send_json(frame)
        assert (answer := socket.receive_json())["session_id"] == first["session_id"]
        assert answer["position"] == 3


def test_an_imported_session_belongs_to_who_imported_it(client: TestClient) -> None:
    session = create(client, ALICE)["session_id"]
    data = client.get(f"/sessions/{session}/export", headers=ALICE.headers).content
    answer = client.post(
        "/sessions/import", content=data, headers={**BOB.headers, "Content-Type": "application/octet-stream"}
    )
    mine = answer.json()["session_id"]
    assert client.get(f"/sessions/{mine}", headers=BOB.headers).json()["position"] == 2
    assert client.get(f"/sessions/{mine}", headers=ALICE.headers).status_code == 404


def test_a_forks_owner_is_that_of_its_origin(client: TestClient) -> None:
    fork = client.post(f"/sessions/{create(client, ALICE)['session_id']}/fork", headers=ALICE.headers).json()[
        "session_id"
    ]
    assert client.get(f"/sessions/{fork}", headers=ALICE.headers).status_code == 200
    assert client.get(f"/sessions/{fork}", headers=BOB.headers).status_code == 404


def test_sessions_made_without_keys_are_nobodys_where_keys_are_needed_and_there_again_where_not(address: str) -> None:
    with serving(store=open_store(address)) as client:
        old = client.post("/sessions", json={"text": "the"}).json()["session_id"]
    with guarded(ALICE, store=open_store(address)) as client:
        assert client.get(f"/sessions/{old}", headers=ALICE.headers).status_code == 404
        hers = create(client, ALICE)["session_id"]
    with serving(store=open_store(address)) as client:
        assert client.get(f"/sessions/{old}").json()["position"] == 1
        for name in (hers, f"alice {hers}", f"alice%20{hers}"):
            assert client.get(f"/sessions/{name}").status_code == 404


def test_records_are_those_of_versions_without_keys() -> None:
    store = MemoryStore()
    with serving(store=store) as client:
        name = client.post("/sessions", json={}, headers={"Idempotency-Key": "a:b"}).json()["session_id"]
        assert list(store.records) == [name]
        assert list(store.answers) == ["a:b"]


@pytest.mark.parametrize("name", ["x", "", "a b", "bob x", " ", "a%20b", "\0"])
def test_no_name_of_one_owner_is_a_name_of_another(name: str) -> None:
    class Holder(Caller):
        def __init__(self, name: str) -> None:
            self.name = name

    names = {}
    for holder in (ANYBODY, Holder("bob"), Holder("bo"), Holder("bob-x")):
        token = CALLER.set(holder)
        names[holder.name] = {owned(name), owned(f"bob {name}"), owned(f"x {name}")}
        CALLER.reset(token)
    for one, other in itertools.combinations(names.values(), 2):
        assert not one & other
    assert bare("bob x") == bare("x") == "x"


def test_what_one_key_has_read_is_read_again_for_another() -> None:
    engines: list[NumpyEngine] = []

    def build(size: int) -> NumpyEngine:
        engines.append(NumpyEngine(size))
        return engines[-1]

    def read(key: Key) -> int:
        """Steps that the engine took."""
        [engine] = engines
        engine.calls.clear()
        answer = service.post("/predict", json={"text": "the meaning of the lights is known"}, headers=key.headers)
        assert answer.status_code == 200
        return sum(rows * steps for rows, steps in engine.calls)

    with guarded(ALICE, BOB, ROTATED, model=fake_model(build=build)) as service:
        assert [read(key) for key in (ALICE, ALICE, BOB, BOB, ROTATED)] == [7, 0, 7, 0, 0]


def test_a_lookup_of_one_owner_takes_no_digest_for_what_another_has(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(1 << 20)
    ids, row = np.arange(100, dtype=np.int32), np.zeros(4, np.float32)
    for length in range(1, 101):
        cache.put(ids[:length], row, "alice")
    cache.put(ids[:3], row, "bob")
    assert list(cache._digests(ids, cache._shelves["bob"])) == [
        pair for pair in cache._digests(ids, cache._shelves["bob"]) if pair[0] == 3
    ]
    assert cache.longest(ids, "bob")[0] == 3
    assert cache.longest(ids, "carol") == cache.longest(ids) == (0, None)
    alices = {digest for _, digest in cache._digests(ids, cache._shelves["alice"])}
    assert not alices & {digest for _, digest in cache._digests(ids, cache._shelves["bob"])}
