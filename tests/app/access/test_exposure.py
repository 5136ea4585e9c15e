"""What of the service is reached from where: addresses, pages of other sites, guesses by the million."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from app.access import command
from app.access.keyring import Keyring
from app.server import check_reach
from app.settings import Settings, load_settings
from model.errors import ConfigurationError
from tests.app.access.keys import guarded, key_file, make_key, write_keys
from tests.app.fakes import LogLines
from tests.app.processes import run
from tests.app.serving import serving

ALICE = make_key("alice")
PAGE, OTHER = "https://editor.example", "https://evil.example"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_only_loopback_is_listened_on_unless_it_is_said(host: str) -> None:
    settings = Settings(host=host)
    with pytest.raises(ConfigurationError, match="PRU_ALLOW_ANONYMOUS=true"):
        check_reach(settings, Keyring(settings))
    for allowed in (Settings(host=host, allow_anonymous=True), Settings(host=host, keys=key_file(ALICE))):
        check_reach(allowed, Keyring(allowed))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    settings = Settings(host=host)
    check_reach(settings, Keyring(settings))


def test_a_server_that_everybody_could_reach_does_not_start() -> None:
    done = run("-m", "app", host="0.0.0.0", port="0")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "PRU_HOST is 0.0.0.0, where others than this machine may ask, and there are no keys" in line


def test_a_server_with_broken_keys_does_not_start_and_says_where(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.toml", "[keys]\nSECRET = 1\n")
    done = run("-m", "app", keys_file=str(path), port="0")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert f"the key file {path} is wrong at keys, entry 1" in line
    assert "SECRET" not in line


def test_the_terminal_makes_a_key_that_works_and_lists_it(tmp_path: Path) -> None:
    made = run("-m", "app", "keys", "new", "alice")
    _, key, _, line = [part for part in made.stdout.splitlines() if part]
    path = write_keys(tmp_path / "keys.toml", f"[limits.alice]\ntokens_per_minute = 1_000\n\n[keys]\n{line}\n")
    listed = run("-m", "app", "keys", "list", keys_file=str(path))
    assert listed.returncode == 0, listed.stderr
    for shown in ("alice", line[:12], "never", "1,000"):
        assert shown in listed.stdout
    assert key not in listed.stdout
    assert line[:20] not in listed.stdout
    with serving(keys_file=path) as client:
        assert client.get("/model", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert client.get("/model").status_code == 401


def test_the_terminal_refuses_names_that_are_none() -> None:
    for name in ("a b", "", "-x", "a" * 65, ALICE.text):
        with pytest.raises(ConfigurationError, match="a name is 1 to 64 letters"):
            command.new(name)
    with pytest.raises(ConfigurationError, match="PRU_KEYS_FILE"):
        command.list_()


def test_a_page_of_another_origin_is_told_nothing_unless_it_is_named() -> None:
    preflight = {
        "Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization",
    }  # fmt: skip
    with guarded(ALICE) as client:
        assert client.options("/predict", headers=preflight).status_code == 401
        answer = client.get("/model", headers={**ALICE.headers, "Origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    with guarded(ALICE, cors_origins=f"{PAGE}, http://localhost:3000") as client:
        answer = client.options("/predict", headers=preflight)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["x-request-id"]
        assert client.options("/predict", headers={**preflight, "Origin": OTHER}).status_code == 400
        for headers, status in ((ALICE.headers, 200), ({}, 401)):
            answer = client.get("/model", headers={**headers, "Origin": PAGE})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
        answer = client.get("/model", headers={**ALICE.headers, "Origin": OTHER})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origins", ["*", "editor.example", "https://editor.example/", "https://a.example, null"])
def test_an_origin_is_written_as_browsers_write_it(origins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRU_CORS_ORIGINS", origins)
    with pytest.raises(ConfigurationError, match="PRU_CORS_ORIGINS: Value error, an origin is"):
        load_settings()


def open_socket(client: TestClient, origin: str | None, host: str = "testserver") -> int:
    """The status of a WebSocket that a page opens, 101 where it is open."""
    session = client.post("/sessions", json={}).json()["session_id"]
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    try:
        with client.websocket_connect(f"/sessions/{session}/stream", headers=headers):
            return 101
    except WebSocketDenialResponse as refusal:
        return refusal.status_code


def test_a_websocket_of_a_page_of_another_site_is_refused() -> None:
    with serving() as client:
        assert open_socket(client, None) == 101
        assert open_socket(client, "http://testserver") == 101
        for origin in (
            PAGE,
            "null",
            "",
            "http://testserver.evil.example",
            "http://testserver:81",
            "http://x@testserver",
            "http://[::1",
            "http://[testserver]",
        ):
            assert open_socket(client, origin) == 403, origin
            assert open_socket(client, origin, host="") == 403, origin
        assert open_socket(client, "http://[::1]:8000", host="[::1]:8000") == 101
        assert open_socket(client, "http://[::1", host="[::1") == 403
    with serving(cors_origins=PAGE) as client:
        assert open_socket(client, PAGE) == 101
        assert open_socket(client, OTHER) == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/model", 200), ("GET", "/health/live", 200), ("GET", "/metrics", 200), ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200), ("GET", "/", 200), ("GET", "/static/main.js", 200), ("GET", "/nothing", 404),
        ("GET", "/predict", 405), ("POST", "/predict", 415), ("GET", "/sessions/x", 404), ("GET", "/v1/models", 200),
    ],
)  # fmt: skip
def test_every_answer_has_the_fields_that_keep_a_browser_from_making_more_of_it(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("referrer-policy") == ["no-referrer"]
    assert "strict-transport-security" not in answer.headers
    [policy] = answer.headers.get_list("content-security-policy")
    assert "frame-ancestors 'none'" in policy
    assert path in {"/", "/docs"} or path.startswith("/static/") or policy.startswith("default-src 'none';")
    kept = "no-cache" if path == "/" or path.startswith("/static/") else "no-store"
    assert answer.headers.get_list("cache-control") == [kept]


def test_what_users_typed_is_kept_by_no_cache(client: TestClient) -> None:
    for path, fields in {"/predict": {"text": "the"}, "/perplexity": {"text": "the"}, "/sessions": {}}.items():
        assert client.post(path, json=fields).headers["cache-control"] == "no-store"
    session = client.post("/sessions", json={}).json()["session_id"]
    writing = {"max_tokens": 1, "stream": True}
    answer = client.post(f"/sessions/{session}/continue", json=writing)
    assert answer.headers.get_list("cache-control") == ["no-store"]


class Serious(LogLines):
    """Log lines but those for debugging."""

    def write(self, text: str) -> int:
        return len(text) if json.loads(text)["level"] == "debug" else super().write(text)


def test_guesses_by_the_thousand_grow_neither_memory_nor_the_log_nor_metrics() -> None:
    logs = Serious()
    with guarded(ALICE, logs=logs) as client:
        guess(client, 500)
        client.get("/metrics")
        size = len(client.get("/metrics").text.splitlines())
        tracemalloc.start()
        guess(client, 100)
        before, _ = tracemalloc.get_traced_memory()
        guess(client, 10_000)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 200_000
        assert len(client.get("/metrics").text.splitlines()) == size
        assert client.get("/model", headers=ALICE.headers).status_code == 200
    lines = logs.events("requests without a key that holds")
    assert sum(line["count"] for line in lines) == 10_600
    assert len(lines) <= 10
    # And besides, what is said of a start, of three requests, and of a stop.
    assert len(logs.getvalue().splitlines()) - len(lines) <= 10


def guess(client: TestClient, count: int) -> None:
    """Ask the application itself, since what a client keeps of each is not the service's."""
    portal = client.portal
    assert portal is not None
    portal.call(_guess, client.app, count)


async def _guess(app: Any, count: int) -> None:
    async def receive() -> Any:
        raise AssertionError("a guess's body is not read")

    for number in range(count):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        kinds = (b"Bearer pru_" + str(number).encode().rjust(43, b"x"), b"Bearer " + str(number).encode(), b"")
        scope = {
            "type": "http", "method": "POST", "path": f"/predict/{number}" if number % 2 else "/predict",
            "query_string": b"", "headers": [(b"authorization", kinds[number % 3])], "state": {},
        }  # fmt: skip
        await app(scope, receive, send)
        assert sent[0]["status"] == 401
