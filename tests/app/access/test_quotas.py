"""Quotas: what a minute has, what is refused, and that what is refused is not used."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI, RateLimitError

from app.access.quotas import Amount, Quotas, Wait
from tests.app.access.keys import Key, guarded, key_file, make_key
from tests.app.processes import SERVE_SMALL, served
from tests.app.serving import PATIENCE, until

ALICE, BOB = make_key("alice"), make_key("bob")
FREE = Amount(0, None)


class Clock:
    time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock) -> Any:
    quotas = Quotas(clock)
    yield quotas
    quotas.close()


def test_a_bucket_holds_a_minutes_worth_and_fills_evenly(quotas: Quotas, clock: Clock) -> None:
    assert [quotas.take("a", Amount(1, 3), FREE) for _ in range(3)] == [None] * 3
    assert quotas.take("a", Amount(1, 3), FREE) == Wait(20.0)
    clock.time += 20
    assert quotas.take("a", Amount(1, 3), FREE) is None
    assert quotas.take("a", Amount(1, 3), FREE) == Wait(20.0)
    clock.time += 1000  # Never more than a minute's worth.
    assert [quotas.take("a", Amount(1, 3), FREE) for _ in range(4)] == [None, None, None, Wait(20.0)]


def test_both_amounts_are_taken_or_neither(quotas: Quotas) -> None:
    assert quotas.take("a", Amount(1, 2), Amount(90, 100)) is None
    assert quotas.take("a", Amount(1, 2), Amount(20, 100)) == Wait(pytest.approx(6.0))  # type: ignore[arg-type]
    assert quotas.take("a", Amount(1, 2), Amount(10, 100)) is None
    assert quotas.take("a", Amount(1, 2), Amount(0, 100)) == Wait(30.0)


def test_more_than_a_minute_has_is_never_to_be_had(quotas: Quotas) -> None:
    assert quotas.take("a", FREE, Amount(101, 100)) == Wait(math.inf)
    assert quotas.take("a", FREE, Amount(100, 100)) is None


def test_what_is_given_back_can_be_taken_and_no_more_than_that(quotas: Quotas) -> None:
    assert quotas.take("a", FREE, Amount(100, 100)) is None
    quotas.give_back("a", FREE, Amount(40, 100))
    assert quotas.take("a", FREE, Amount(41, 100)) is not None
    assert quotas.take("a", FREE, Amount(40, 100)) is None
    quotas.give_back("b", FREE, Amount(100, 100))
    assert quotas.take("b", FREE, Amount(101, 100)) is not None
    assert quotas.take("b", FREE, Amount(100, 100)) is None
    assert quotas.take("b", FREE, Amount(1, 100)) is not None


def test_names_have_buckets_of_their_own_and_a_place_is_reused_once_its_bucket_is_full(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access.quotas._COUNT", 8)
    quotas = Quotas(clock)
    for round_ in range(5):
        names = [f"{round_}-{number}" for number in range(8)]
        assert [quotas.take(name, Amount(1, 1), FREE) for name in names] == [None] * 8
        assert [quotas.take(name, Amount(1, 1), FREE) for name in names] == [Wait(60.0)] * 8
        clock.time += 60
    # What is given back for one that has lost its place gives nobody more than a minute's worth.
    quotas.give_back("0-0", Amount(1, 1), FREE)
    assert [quotas.take("0-0", Amount(1, 1), FREE) for _ in range(2)] == [None, Wait(60.0)]
    quotas.close()


def _take(quotas: Quotas, times: int, taken: Any) -> None:
    taken.put(sum(quotas.take("a", Amount(1, 1000), FREE) is None for _ in range(times)))


def test_processes_that_share_it_take_together_exactly_what_there_is(quotas: Quotas) -> None:
    fork = multiprocessing.get_context("fork")
    taken = fork.SimpleQueue()
    processes = [fork.Process(target=_take, args=(quotas, 900, taken)) for _ in range(3)]
    for process in processes:
        process.start()
    total = sum(taken.get() for _ in processes)
    for process in processes:
        process.join()
    assert total == 1000  # The clock stands still.


def predict(client: TestClient | httpx2.Client, text: str = "the harbour", headers: Any = None) -> Any:
    return client.post("/predict", json={"text": text}, headers=ALICE.headers if headers is None else headers)


def test_over_its_requests_a_key_is_429_and_others_are_not() -> None:
    with guarded(ALICE, BOB, limits={"alice": {"requests_per_minute": 2}}) as client:
        assert [predict(client).status_code for _ in range(2)] == [200, 200]
        answer = predict(client)
        assert answer.status_code == 429
        assert 25 <= int(answer.headers["retry-after"]) <= 30
        assert answer.json()["detail"].startswith("this key has used up its requests of this minute; try again in ")
        assert predict(client, headers=BOB.headers).status_code == 200
        assert client.get("/health/ready", headers=ALICE.headers).status_code == 200
        openai = OpenAI(base_url="http://testserver/v1", api_key=ALICE.text, http_client=client, max_retries=0)
        with pytest.raises(RateLimitError):
            openai.completions.create(model="tiny", prompt="the")


def test_what_is_refused_for_its_tokens_counts_neither_them_nor_the_request() -> None:
    with guarded(ALICE, limits={"alice": {"requests_per_minute": 3, "tokens_per_minute": 4}}) as client:
        assert predict(client, "the harbour is").status_code == 200
        for _ in range(5):
            answer = predict(client, "the harbour")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "15")
        assert predict(client, "the").status_code == 200
        answer = predict(client, "the harbour is small now")
        assert answer.status_code == 403
        assert "needs 5 tokens and this key may have 4 a minute" in answer.json()["detail"]


MANY = {"alice": {"tokens_per_minute": 1_000_000}}


def test_every_token_that_is_read_or_written_counts_once() -> None:
    def cost(path: str, **fields: Any) -> tuple[int, Any]:
        before = charged(client)
        answer = client.post(path, json=fields, headers=ALICE.headers)
        return charged(client) - before, answer

    with guarded(ALICE, limits=MANY) as client:
        assert cost("/predict", text="the harbour")[0] == 2
        assert (
            cost("/perplexity", texts=["the harbour", "is small"], context="the sea")[0] == 2 + 2 + 2
        )  # The last is not read.
        assert cost("/v1/completions", prompt=["the", "the sea"], n=2, max_tokens=5, seed=1)[0] == 3 + 2 * 2 * 5
        assert cost("/tokenize", prompt="the harbour")[0] == 0
        count, answer = cost("/sessions", text="the harbour is")
        session = answer.json()["session_id"]
        assert count == 3
        assert cost(f"/sessions/{session}/append", text="small ,")[0] == 2
        assert cost(f"/sessions/{session}/append", text="")[0] == 0
        assert cost(f"/sessions/{session}/rewind", position=4)[0] == 4
        assert cost(f"/sessions/{session}/fork")[0] == 0
        assert cost(f"/sessions/{session}/continue", max_tokens=7)[0] == 7
        with client.websocket_connect(f"/sessions/{session}/stream", headers=ALICE.headers) as socket:
            before = charged(client)
            socket.send_json({"id": 1, "type": "append", "text": "the sea"})
            assert socket.receive_json()["type"] == "append"
            assert charged(client) - before == 2


def charged(client: TestClient) -> int:
    """Tokens that were charged to all so far."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("pru_key_tokens_total "):
            return int(float(line.split()[1]))
    return 0


def test_a_request_that_is_refused_for_what_it_asks_uses_no_tokens() -> None:
    with guarded(ALICE, limits={"alice": {"tokens_per_minute": 3}}) as client:
        for _ in range(5):
            answer = client.post("/sessions/unknown/append", json={"text": "the harbour is"}, headers=ALICE.headers)
            assert answer.status_code == 404
        assert predict(client, "the harbour is").status_code == 200


def test_an_idempotency_key_of_another_request_uses_no_tokens() -> None:
    with guarded(ALICE, limits={"alice": {"tokens_per_minute": 6}}) as client:
        headers = {**ALICE.headers, "Idempotency-Key": "once"}
        assert client.post("/sessions", json={"text": "the harbour is"}, headers=headers).status_code == 201
        for _ in range(5):
            assert client.post("/sessions", json={"text": "the harbour"}, headers=headers).status_code == 422
        assert predict(client, "the harbour is").status_code == 200
        assert predict(client, "the").status_code == 429


def test_each_frame_is_a_request_and_over_quota_it_is_an_error_and_changes_nothing() -> None:
    # One for the session, one for the handshake.
    with guarded(ALICE, limits={"alice": {"requests_per_minute": 4, "tokens_per_minute": 100}}) as client:
        session = client.post("/sessions", json={}, headers=ALICE.headers).json()["session_id"]
        with client.websocket_connect(f"/sessions/{session}/stream", headers=ALICE.headers) as socket:
            answers = []
            for number in range(4):
                socket.send_json({"id": number, "type": "append", "text": "the"})
                answers.append(socket.receive_json())
        assert [answer.get("position") for answer in answers] == [1, 2, None, None]
        assert {answer["status"] for answer in answers[2:]} == {429}
        assert "used up its requests" in answers[2]["detail"]


def test_a_frame_that_is_none_is_a_request_all_the_same() -> None:
    with guarded(ALICE, limits={"alice": {"requests_per_minute": 4}}) as client:
        session = client.post("/sessions", json={}, headers=ALICE.headers).json()["session_id"]
        with client.websocket_connect(f"/sessions/{session}/stream", headers=ALICE.headers) as socket:
            statuses = []
            for text in ("{", '{"id": 1}', "{", '{"id": 1}'):
                socket.send_text(text)
                statuses.append(socket.receive_json()["status"])
        assert statuses == [400, 422, 429, 429]
        assert predict(client).status_code == 429


def test_two_workers_on_one_port_share_a_quota_exactly() -> None:
    keys = key_file(ALICE, BOB, alice={"tokens_per_minute": 200})
    with served("-c", SERVE_SMALL, keys=keys, workers="2") as service:
        until(lambda: len(service.events("ready")) == 2)

        def ask(key: Key) -> int:
            # A connection each, so that both workers are asked.
            with closing(HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
                headers = {**key.headers, "Content-Type": "application/json"}
                connection.request("POST", "/predict", json.dumps({"text": "the harbour is small"}), headers)
                return connection.getresponse().status

        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: ask(ALICE), range(150)))
        came_back = (time.monotonic() - began) * 200 / 60
        assert set(statuses) == {200, 429}
        assert 200 // 4 <= statuses.count(200) <= (200 + came_back) // 4
        assert ask(BOB) == 200
