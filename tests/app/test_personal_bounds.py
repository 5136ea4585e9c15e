"""What a personal session does not learn, how much it keeps and for how long, and who else sees it: nobody."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from app.errors import StoreError
from app.sessions.cursor import LONGEST_TAIL
from app.sessions.memory import LONGEST_OWN, MOST_OWN
from tests.app.access.keys import guarded, make_key
from tests.app.fakes import LogLines, NumpyEngine, fake_model, small_vocabulary
from tests.app.memory_store import MemoryStore
from tests.app.personal import WINDOW, personal
from tests.app.serving import serving
from tests.app.talking import append, post
from tests.app.traced import tracing

VOCABULARY = small_vocabulary()
BLOB = {"Content-Type": "application/octet-stream"}


def test_a_request_that_fails_or_is_repeated_teaches_nothing(learning: TestClient, store: MemoryStore) -> None:
    session_id = personal(learning, "the harbour")
    path = f"/sessions/{session_id}"
    before = store.records[session_id]
    post(learning, f"{path}/append", 409, text="Zog", expected_position=7)
    post(learning, f"{path}/append", 422, text="Zog", k=0)
    store.fail = StoreError("somewhere", "is full", "make room")
    try:
        post(learning, f"{path}/append", 503, text="Zog")
    finally:
        store.fail = None
    assert store.records[session_id] == before
    first = post(learning, f"{path}/append", key="personal-1", text="Zog")
    learnt = store.records[session_id]
    assert post(learning, f"{path}/append", key="personal-1", text="Zog") == first
    assert store.records[session_id] == learnt
    assert first["personal"] == {"tokens": 3, "own_words": 1}
    started = post(learning, "/sessions", 201, key="personal-2", text="the Zog", personal=True)
    assert post(learning, "/sessions", 201, key="personal-2", text="the Zog", personal=True) == started
    assert "another request" in post(learning, "/sessions", 422, key="personal-2", text="the Zog")["detail"]


def test_an_engine_that_fails_on_the_way_teaches_nothing() -> None:
    store, failing = MemoryStore(), False

    def fail() -> None:
        if failing:
            raise RuntimeError("the device is gone")

    model = fake_model(build=lambda size: NumpyEngine(size, before=fail))
    with serving(model, store=store) as client:
        session_id = personal(client, "the Zog")
        before = store.records[session_id]
        failing = True
        post(client, f"/sessions/{session_id}/append", 500, text="is small " * 20)
        failing = False
        assert store.records[session_id] == before
        assert append(client, session_id, "is")["position"] == 3


def test_so_much_is_remembered_and_no_more_however_much_is_typed(learning: TestClient, store: MemoryStore) -> None:
    long_word = "x" * (LONGEST_OWN + 1)
    session_id = personal(learning, " ".join(f"w{n}" for n in range(3000)) + f" {long_word}")
    engine = NumpyEngine(len(VOCABULARY))
    most = (WINDOW + LONGEST_TAIL) * (engine.hidden_size + 8) + (MOST_OWN + LONGEST_TAIL) * (4 + LONGEST_OWN + 1)
    assert len(store.records[session_id].personal) < most + 12
    answer = append(learning, session_id, " ".join(f"v{n}" for n in range(700)), k=100)
    assert answer["personal"] == {"tokens": WINDOW, "own_words": MOST_OWN}
    assert len(store.records[session_id].personal) < most + 12
    assert long_word not in [it["word"] for it in answer["predictions"]]
    assert append(learning, session_id, prefix="v199")["predictions"] == []
    assert append(learning, session_id, prefix="v200")["predictions"][0]["word"] == "v200"


def test_what_was_learnt_goes_with_its_session(learning: TestClient, store: MemoryStore) -> None:
    session_id = personal(learning, "the Zog")
    assert b"Zog" in store.records[session_id].personal
    assert learning.delete(f"/sessions/{session_id}").status_code == 204
    assert session_id not in store.records
    assert learning.get(f"/sessions/{session_id}/export").status_code == 404


def test_an_exported_memory_is_cut_to_what_the_server_keeps_and_damage_is_refused(learning: TestClient) -> None:
    session_id = personal(learning, "the Zog is small " * 30)
    blob = learning.get(f"/sessions/{session_id}/export").content
    assert blob[8:10] == b"\2\0"
    with serving(personal_window=1) as smaller:
        moved = smaller.post("/sessions/import", content=blob, headers=BLOB).json()
        assert moved["personal"] == {"tokens": 1, "own_words": 1}
    damaged = blob[:-40] + b"Z" + blob[-39:]
    refused = learning.post("/sessions/import", content=damaged, headers=BLOB)
    assert refused.status_code == 422
    assert "cut or altered" in refused.json()["detail"]


def test_nothing_that_was_typed_is_logged_counted_or_traced() -> None:
    logs = LogLines()
    with tracing(logs=logs) as (client, spans):
        session_id = personal(client, "the Zanzibarra")
        append(client, session_id, "Mirabelle is small", prefix="zan")
        post(client, f"/sessions/{session_id}/continue", max_tokens=3)
        client.post("/sessions", json={"text": "Mirabelle", "personal": "Zanzibarra"})
        numbers = client.get("/metrics").text
    traced = "".join(span.to_json() for span in spans.all)
    assert "append" in traced
    for told in (logs.getvalue(), numbers, traced):
        assert "anzibarra" not in told
        assert "irabelle" not in told


def test_what_one_key_typed_is_suggested_to_no_other() -> None:
    alice, bob = make_key("alice"), make_key("bob")
    with guarded(alice, bob) as client:

        def ask(key: Any, path: str, status: int, **fields: Any) -> Any:
            response = client.post(path, json=fields, headers=key.headers)
            assert response.status_code == status, response.text
            return response.json()

        hers = ask(alice, "/sessions", 201, text="the Zanzibarra", personal=True)["session_id"]
        his = ask(bob, "/sessions", 201, text="the harbour", personal=True)["session_id"]
        assert ask(alice, f"/sessions/{hers}/append", 200, prefix="zan")["predictions"][0]["word"] == "Zanzibarra"
        assert ask(bob, f"/sessions/{his}/append", 200, prefix="zan")["predictions"] == []
        ask(bob, f"/sessions/{hers}/append", 404, prefix="zan")
        ask(bob, f"/sessions/{hers}/fork", 404)
        assert client.get(f"/sessions/{hers}/export", headers=bob.headers).status_code == 404
        assert ask(bob, "/predict", 200, text="the", prefix="zan")["predictions"] == []
