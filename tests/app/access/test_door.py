"""Who is let in: keys over HTTP and WebSocket, and what is no key."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openai import AuthenticationError, OpenAI
from starlette.testclient import WebSocketDenialResponse

from app.access.routes import RouteGroup, group_of
from app.settings import Settings
from tests.app.access.keys import Key, guarded, make_key
from tests.app.fakes import LogLines
from tests.app.serving import make_app, serving

ALICE, BOB = make_key("alice"), make_key("bob")
EXPIRED = make_key("carol", datetime.now(UTC) - timedelta(seconds=1))
SOON = make_key("dave", datetime.now(UTC) + timedelta(hours=1))
SCRAPER = make_key("scraper")
KEYS = (ALICE, BOB, EXPIRED, SOON, SCRAPER)
NEW = make_key("alice")
"""In no file."""

Fields = dict[str, str] | list[tuple[str, str]]


@pytest.fixture(scope="module")
def client() -> Any:
    with guarded(*KEYS, limits={"scraper": {"routes": '["metrics", "model"]'}}) as ready:
        yield ready


def predict(client: TestClient, headers: Any = None, path: str = "/predict") -> Any:
    return client.post(path, json={"text": "the harbour"}, headers=headers)


@pytest.mark.parametrize("key", [ALICE, BOB, SOON], ids=["alice", "bob", "dave"])
def test_every_key_that_holds_is_let_in(client: TestClient, key: Key) -> None:
    assert predict(client, key.headers).json()["token_count"] == 2
    assert predict(client, {"authorization": f"bearer  {key.text} "}).status_code == 200


WRONG: dict[str, Any] = {
    "none": {},
    "another": NEW.headers,
    "expired": EXPIRED.headers,
    "empty": {"Authorization": ""},
    "the scheme alone": {"Authorization": "Bearer"},
    "no key behind the scheme": {"Authorization": "Bearer "},
    "another scheme": {"Authorization": f"Basic {ALICE.text}"},
    "no scheme": {"Authorization": ALICE.text},
    "cut": {"Authorization": f"Bearer {ALICE.text[:-1]}"},
    "longer": {"Authorization": f"Bearer {ALICE.text}A"},
    "a hash": {"Authorization": f"Bearer {ALICE.line[:64]}"},
    "a name": {"Authorization": "Bearer alice"},
    "in upper case": {"Authorization": f"Bearer {ALICE.text.upper()}"},
    "bytes that are no text": {"Authorization": b"Bearer \xff\xfe" + ALICE.text.encode()},
    "long": {"Authorization": "Bearer " + "A" * 60_000},
    "two of one": [("Authorization", f"Bearer {ALICE.text}")] * 2,
    "two of two": [("Authorization", f"Bearer {ALICE.text}"), ("Authorization", f"Bearer {BOB.text}")],
    "two in one field": {"Authorization": f"Bearer {ALICE.text}, Bearer {BOB.text}"},
    "in another field": {"X-Api-Key": ALICE.text, "Cookie": f"key={ALICE.text}"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_without_one_key_that_holds_it_is_401_with_a_problem_document(client: TestClient, headers: Any) -> None:
    answer = predict(client, headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["title"]) == (401, "Unauthorized")
    assert document["request_id"] == answer.headers["x-request-id"]
    assert not re.search(r"pru_[A-Za-z0-9_-]{20}", answer.text)


def test_a_key_in_the_query_is_no_key(client: TestClient) -> None:
    for name in ("key", "api_key", "access_token", "token", "authorization"):
        assert predict(client, path=f"/predict?{name}={ALICE.text}").status_code == 401
        with (
            pytest.raises(WebSocketDenialResponse),
            client.websocket_connect(f"/sessions/x/stream?{name}={ALICE.text}"),
        ):
            pass


def test_what_is_said_does_not_tell_a_wrong_key_from_an_expired_one(client: TestClient) -> None:
    details = {predict(client, headers).json()["detail"] for headers in (NEW.headers, EXPIRED.headers)}
    assert len(details) == 1


def test_under_v1_it_is_openais_shape_and_its_client_knows_it(client: TestClient) -> None:
    answer = client.post("/v1/completions", json={"prompt": "the"}, headers=NEW.headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"] == {
        "message": "the key is wrong, expired or withdrawn; ask the operator for a new one",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    for key in (ALICE, NEW):
        openai = OpenAI(base_url="http://testserver/v1", api_key=key.text, http_client=client, max_retries=0)
        if key is ALICE:
            assert openai.completions.create(model="tiny", prompt="the", max_tokens=1).usage is not None
        else:
            with pytest.raises(AuthenticationError):
                openai.completions.create(model="tiny", prompt="the", max_tokens=1)


def test_a_key_for_some_routes_is_403_at_others(client: TestClient) -> None:
    assert client.get("/model", headers=SCRAPER.headers).status_code == 200
    answer = predict(client, SCRAPER.headers)
    assert (answer.status_code, answer.json()["title"]) == (403, "Forbidden")
    answer = client.post("/v1/completions", json={"prompt": "the"}, headers=SCRAPER.headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("/sessions/x/stream", subprotocols=SCRAPER.subprotocols),
    ):
        pass
    assert caught.value.status_code == 403


def test_a_websocket_takes_its_key_as_a_subprotocol_or_a_header_and_says_the_key_to_nobody(client: TestClient) -> None:
    session = client.post("/sessions", json={}, headers=ALICE.headers).json()["session_id"]
    ways: list[dict[str, Any]] = [
        {"subprotocols": ALICE.subprotocols},
        {"subprotocols": ALICE.subprotocols[::-1]},
        {"headers": ALICE.headers},
    ]
    for way in ways:
        with client.websocket_connect(f"/sessions/{session}/stream", **way) as socket:
            assert socket.accepted_subprotocol == ("pru" if "subprotocols" in way else None)
            socket.send_json({"id": 1, "type": "append", "text": "the"})
            assert socket.receive_json()["type"] == "append"


@pytest.mark.parametrize(
    "subprotocols",
    [
        [], ["pru"], NEW.subprotocols, ["pru", "pru.key."], ["pru", ALICE.text], ["pru", f"pru.key.{ALICE.text[:-1]}"],
        [*ALICE.subprotocols, f"pru.key.{BOB.text}"], EXPIRED.subprotocols,
    ],
)  # fmt: skip
def test_a_websocket_without_one_key_that_holds_is_401(client: TestClient, subprotocols: list[str]) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("/sessions/x/stream", subprotocols=subprotocols),
    ):
        pass
    assert caught.value.status_code == 401
    assert caught.value.headers["www-authenticate"] == "Bearer"


def test_a_header_and_a_subprotocol_are_two_keys(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("/sessions/x/stream", subprotocols=ALICE.subprotocols, headers=ALICE.headers),
    ):
        pass
    assert caught.value.status_code == 401


GROUPS = {
    "/": "playground", "/static/main.js": "playground", "/docs": "docs", "/docs/oauth2-redirect": "docs",
    "/openapi.json": "docs", "/static-offline-docs/swagger-ui.css": "docs", "/metrics": "metrics",
    "/health/live": "probes", "/health/ready": "probes", "/model": "model", "/v1/models": "model",
    "/v1/models/{model}": "model", "/tokenize": "tokenizer", "/detokenize": "tokenizer", "/tokenizer_info": "tokenizer",
    "/predict": "predict", "/perplexity": "perplexity", "/v1/completions": "completions", "/sessions": "sessions",
    "/sessions/import": "sessions", "/sessions/{session_id}": "sessions", "/sessions/{session_id}/append": "sessions",
    "/sessions/{session_id}/rewind": "sessions", "/sessions/{session_id}/fork": "sessions",
    "/sessions/{session_id}/continue": "sessions", "/sessions/{session_id}/export": "sessions",
    "/sessions/{session_id}/stream": "sessions",
}  # fmt: skip


def test_every_route_has_a_group() -> None:
    assert {path: group_of(path) for path in GROUPS} == {path: RouteGroup(name) for path, name in GROUPS.items()}
    assert set(make_app().openapi()["paths"]) <= GROUPS.keys()


def test_what_is_no_route_is_in_no_group_and_needs_a_key(client: TestClient) -> None:
    for path in ("/nothing", "//predict", "/Predict", "/v1", "/healthz", "/metrics/", "/static", "/admin", "/model/x"):
        assert group_of(path) is None, path
        assert client.get(f"http://testserver{path}").status_code == 401, path
        assert client.get(f"http://testserver{path}", headers=ALICE.headers).status_code == 404, path


def test_probes_metrics_documentation_and_the_page_are_open_and_nothing_else(client: TestClient) -> None:
    templates = {path: path.replace("{model}", "tiny").replace("{session_id}", "x") for path in GROUPS}
    for template, path in templates.items():
        if template.endswith("/stream"):
            continue
        is_open = GROUPS[template] in {"probes", "metrics", "docs", "playground"}
        statuses = {client.request(method, path).status_code for method in ("GET", "POST", "DELETE")}
        assert (statuses == {401}) is not is_open, template
        assert (200 in statuses) is is_open, template


def test_routes_are_opened_and_closed_by_name() -> None:
    with guarded(ALICE, open_routes="probes, tokenizer") as client:
        assert client.post("/tokenize", json={"prompt": "the"}).status_code == 200
        for path in ("/metrics", "/docs", "/openapi.json", "/", "/static/main.js", "/model"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers=ALICE.headers).status_code == 200, path


@pytest.mark.parametrize(
    "path", ["/static/../predict", "/static/%2e%2e/predict", "/health/../predict", "/docs/../predict"]
)
def test_no_open_path_leads_to_a_closed_route(client: TestClient, path: str) -> None:
    answer = client.request("POST", f"http://testserver{path}", json={"text": "the"})
    assert answer.status_code in {401, 404, 405}


def test_without_keys_everybody_is_let_in_whatever_key_he_sends() -> None:
    with serving() as client:
        assert predict(client).status_code == predict(client, NEW.headers).status_code == 200
        session = client.post("/sessions", json={}).json()["session_id"]
        with client.websocket_connect(f"/sessions/{session}/stream", subprotocols=NEW.subprotocols) as socket:
            assert socket.accepted_subprotocol == "pru"


def test_no_key_is_in_a_log_line_in_metrics_or_in_an_answer_and_the_log_has_the_name() -> None:
    logs = LogLines()
    with guarded(ALICE, logs=logs) as client:
        predict(client, ALICE.headers)
        for key in (ALICE, NEW):
            client.get(f"/nothing/{key.text}", headers=key.headers)
            client.post("/v1/completions", json={"prompt": key.text, "n": "x"}, headers=key.headers)
        told = [client.get(path, headers=ALICE.headers).text for path in ("/metrics", "/model", "/openapi.json")]
    for text in (logs.getvalue(), *told):
        for key in (ALICE, NEW):
            assert key.text not in text
            assert key.line[:64] not in text
    [line] = [line for line in logs.events("request") if line["route"] == "/predict"]
    assert (line["key"], line["status"]) == ("alice", 200)
    assert "pru_key_requests_total 3.0" in told[0]
    assert "pru_key_tokens_total 2.0" in told[0]


def test_settings_show_no_keys() -> None:
    assert "alice" not in repr(Settings(keys=ALICE.line))
