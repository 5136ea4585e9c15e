"""Keys that change while the service runs: rotated, spoilt, removed, expired."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.access import keyring as keyring_module
from app.access.keyring import Keyring
from app.errors import UnauthorizedError
from app.settings import Settings
from model.errors import ConfigurationError
from tests.app.access.keys import Key, key_file, make_key, write_keys
from tests.app.fakes import LogLines
from tests.app.processes import SERVE_SMALL, served
from tests.app.serving import PATIENCE, make_app, ready, serving, starting, until

ALICE, NEXT, BOB = make_key("alice"), make_key("alice"), make_key("bob")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys.toml", key_file(ALICE))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "POLL_SECONDS", 0.02)


def status(client: TestClient, key: Key) -> int:
    return client.get("/model", headers=key.headers).status_code


@contextmanager
def following(path: Path) -> Iterator[tuple[TestClient, LogLines]]:
    logs = LogLines()
    with serving(logs=logs, keys_file=path) as client:
        yield client, logs


def test_a_new_key_is_taken_and_one_that_is_gone_is_refused_without_a_restart(path: Path) -> None:
    with following(path) as (client, logs):
        assert (status(client, ALICE), status(client, NEXT)) == (200, 401)
        write_keys(path, key_file(ALICE, NEXT))
        until(lambda: status(client, NEXT) == 200)
        assert status(client, ALICE) == 200
        write_keys(path, key_file(NEXT))
        until(lambda: status(client, ALICE) == 401)
        assert status(client, NEXT) == 200
        assert [(line["keys"], line["names"]) for line in logs.events("new keys")] == [(2, 1), (1, 1)]


def test_keys_are_followed_after_a_time_in_which_the_log_could_not_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "TELL_SECONDS", 0.0)
    with following(path) as (client, logs):
        logs.is_full = True
        assert status(client, BOB) == 401
        write_keys(path, key_file(ALICE, NEXT))
        until(lambda: status(client, NEXT) == 200)
        logs.is_full = False
        write_keys(path, key_file(NEXT))
        until(lambda: status(client, ALICE) == 401)
        assert status(client, NEXT) == 200


GARBAGE = {
    "garbage": "\0\0 SECRET = [",
    "nothing": "",
    "no keys": "[keys]\n",
    "half": key_file(ALICE, BOB)[:-40],
    "a wrong field": key_file(ALICE) + "SECRET = 1\n",
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_broken_file_leaves_the_old_keys_and_is_told_once_without_its_content(path: Path, text: str) -> None:
    with following(path) as (client, logs):
        write_keys(path, text)
        until(lambda: bool(logs.events("the new keys are not taken, the old ones stay")))
        time.sleep(0.2)
        assert (status(client, ALICE), status(client, BOB)) == (200, 401)
        [line] = logs.events("the new keys are not taken, the old ones stay")
        assert line["level"] == "error"
        assert str(path) in line["reason"]
        assert "SECRET" not in logs.getvalue()
        write_keys(path, key_file(BOB))
        until(lambda: status(client, BOB) == 200)


def test_a_secret_that_kubernetes_exchanges_is_followed(tmp_path: Path) -> None:
    # It mounts a folder of links through `..data`, which it turns from one version to the next in one step.
    secret = tmp_path / "keys"

    def exchange(version: str, *keys: Key) -> None:
        (secret / version).mkdir(parents=True)
        write_keys(secret / version / "keys.toml", key_file(*keys), 0o440)
        (secret / "..new").symlink_to(version)
        (secret / "..new").rename(secret / "..data")

    exchange("..first", ALICE)
    (secret / "keys.toml").symlink_to("..data/keys.toml")
    with following(secret / "keys.toml") as (client, _):
        assert (status(client, ALICE), status(client, BOB)) == (200, 401)
        exchange("..second", BOB)
        until(lambda: status(client, BOB) == 200)
        assert status(client, ALICE) == 401


def _delete(path: Path) -> None:
    path.unlink()


def _let_others_write(path: Path) -> None:
    path.chmod(0o666)


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_delete, _let_others_write, _make_folder])
def test_a_file_that_is_gone_or_not_to_be_trusted_leaves_the_old_keys(path: Path, spoil: Any) -> None:
    with following(path) as (client, logs):
        spoil(path)
        until(lambda: bool(logs.events("the new keys are not taken, the old ones stay")))
        assert status(client, ALICE) == 200
        if path.is_dir():
            path.rmdir()
        write_keys(path, key_file(BOB))
        until(lambda: status(client, BOB) == 200)
        assert status(client, ALICE) == 401


def test_a_file_that_cannot_be_read_any_more_leaves_the_old_keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: Any, *arguments: Any, **named: Any) -> int:
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied")
        return plain(name, *arguments, **named)

    plain = os.open
    with following(path) as (client, logs):
        monkeypatch.setattr(os, "open", refuse)  # Whoever runs the tests may be allowed everything.
        path.touch()
        until(lambda: bool(logs.events("the new keys are not taken, the old ones stay")))
        assert status(client, ALICE) == 200
        assert "cannot be read: Permission denied" in logs.getvalue()


def test_a_file_that_is_still_being_written_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "POLL_SECONDS", 0.4)
    with following(path) as (client, logs):
        whole = key_file(ALICE, NEXT, BOB)
        for end in range(0, len(whole), 10):
            path.write_text(whole[:end])  # In place, as an editor might, and as slowly as a network's disk.
            time.sleep(0.02)
        assert status(client, ALICE) == 200
        path.write_text(whole)
        until(lambda: status(client, BOB) == 200)
        assert logs.events("the new keys are not taken, the old ones stay") == []


def test_a_key_ends_by_the_clock_at_the_second_it_says() -> None:
    now = [1_000_000.0]
    short = make_key("alice", datetime.fromtimestamp(1_000_010, UTC))
    keyring = Keyring(Settings(keys=key_file(short, BOB)), lambda: now[0])
    keyring.load()
    caller = keyring.recognise(short.text.encode(), None)
    now[0] += 9.999
    assert keyring.recognise(short.text.encode(), None).name == "alice"
    now[0] += 0.001
    with pytest.raises(UnauthorizedError):
        keyring.recognise(short.text.encode(), None)
    with pytest.raises(UnauthorizedError):
        caller.begin()
    now[0] -= 5  # A clock that is set back makes it hold again, and breaks nothing.
    assert keyring.recognise(short.text.encode(), None).name == "alice"
    keyring.close()


def test_a_clock_that_is_set_moves_no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = Keyring(Settings(keys=key_file(ALICE, alice={"requests_per_minute": 2})))
    keyring.load()
    caller = keyring.recognise(ALICE.text.encode(), None)
    caller.begin()
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 1e6)
    caller.begin()
    with pytest.raises(Exception, match="used up its requests"):
        caller.begin()
    keyring.close()


@pytest.mark.anyio
async def test_no_request_fails_that_held_a_valid_key_while_keys_are_rotated(path: Path) -> None:
    """One key always holds: a new one is added, then callers change to it, then the old one is removed."""
    app = make_app(keys_file=path)
    async with starting(app) as client:
        await ready(client)
        held, stop, count = [ALICE], False, 0

        async def ask() -> None:
            nonlocal count
            while not stop:
                answer = await client.post("/predict", json={"text": "the"}, headers=held[0].headers)
                assert answer.status_code == 200, answer.text
                count += 1

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        old = ALICE
        for _ in range(5):
            new = make_key("alice")
            write_keys(path, key_file(old, new))
            while (await client.get("/model", headers=new.headers)).status_code != 200:
                await asyncio.sleep(0.005)
            before = count
            held[0] = new
            while count < before + 8:  # Those that were asked with the old key are answered.
                await asyncio.sleep(0.005)
            write_keys(path, key_file(new))
            while (await client.get("/model", headers=old.headers)).status_code != 401:
                await asyncio.sleep(0.005)
            old = new
        stop = True
        await asyncio.gather(*asking)
        assert count > 40


def test_a_websocket_whose_key_is_withdrawn_is_answered_no_more(path: Path) -> None:
    with following(path) as (client, _):
        session = client.post("/sessions", json={}, headers=ALICE.headers).json()["session_id"]
        with client.websocket_connect(f"/sessions/{session}/stream", subprotocols=ALICE.subprotocols) as socket:
            socket.send_json({"id": 1, "type": "append", "text": "the"})
            assert socket.receive_json()["position"] == 1
            write_keys(path, key_file(NEXT))
            until(lambda: status(client, ALICE) == 401)
            socket.send_json({"id": 2, "type": "append", "text": "the"})
            assert socket.receive_json()["status"] == 401
            socket.send_text("{")
            assert socket.receive_json()["status"] == 401
        answer = client.get(f"/sessions/{session}", headers=NEXT.headers)
        assert answer.json()["position"] == 1


def test_a_websocket_whose_key_is_given_to_another_holder_is_answered_no_more(path: Path) -> None:
    handed_on = Key(ALICE.text, ALICE.line.replace('"alice"', '"bob"'))
    with following(path) as (client, logs):
        session = client.post("/sessions", json={}, headers=ALICE.headers).json()["session_id"]
        with client.websocket_connect(f"/sessions/{session}/stream", subprotocols=ALICE.subprotocols) as socket:
            socket.send_json({"id": 1, "type": "append", "text": "the"})
            assert socket.receive_json()["position"] == 1
            write_keys(path, key_file(handed_on, NEXT))
            until(lambda: bool(logs.events("new keys")))
            socket.send_json({"id": 2, "type": "append", "text": "the"})
            assert socket.receive_json()["status"] == 401
        assert status(client, handed_on) == 200
        assert client.get(f"/sessions/{session}", headers=handed_on.headers).status_code == 404
        assert client.get(f"/sessions/{session}", headers=NEXT.headers).json()["position"] == 1


def test_keys_in_both_places_are_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="both PRU_KEYS and PRU_KEYS_FILE are set"):
        Keyring(Settings(keys_file=path, keys=key_file(ALICE))).load()


def test_every_worker_takes_new_keys(path: Path) -> None:
    with served("-c", SERVE_SMALL, keys_file=str(path), workers="2") as service:
        service.wait_until_ready()

        def statuses(key: Key) -> set[int]:
            """A connection each, so that both workers are asked."""
            asked = [
                httpx2.get(f"{service.url}/model", headers=key.headers, timeout=PATIENCE).status_code for _ in range(24)
            ]
            return set(asked)

        assert statuses(ALICE) == {200}
        write_keys(path, key_file(BOB))
        until(lambda: statuses(BOB) == {200})
        assert statuses(ALICE) == {401}
        until(lambda: len(service.events("new keys")) == 2)
