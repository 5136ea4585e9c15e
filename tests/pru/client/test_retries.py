"""When a request is sent again: only where that may help, after how long, and always the same to the byte."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from app.schemas import PredictAnswer
from pru import (
    APIError,
    AsyncPRUClient,
    ConflictError,
    ConnectionFailedError,
    OverloadedError,
    PRUClient,
    TimedOutError,
)
from pru.client.judging import FIRST_WAIT, LONGEST_WAIT
from tests.pru.client.script import PREDICTED, STANDING, Script, refused, told

PASSING = [
    httpx2.ConnectError("refused"),
    httpx2.ConnectTimeout("slow"),
    httpx2.ReadError("reset"),
    httpx2.ReadTimeout("slow"),
    httpx2.RemoteProtocolError("cut"),
    refused(408),
    refused(429, Retry_After=""),
    refused(502),
    refused(503, Retry_After=""),
    refused(504),
]

READING: dict[str, Callable[[PRUClient], Any]] = {
    "predict": lambda client: client.predict("the"),
    "perplexity": lambda client: client.perplexity("the"),
    "tokenize": lambda client: client.tokenize("the"),
    "detokenize": lambda client: client.detokenize([1]),
    "tokenizer_info": lambda client: client.tokenizer_info(),
    "model": lambda client: client.model(),
    "attach": lambda client: client.attach("abc"),
    "export": lambda client: client.attach("abc").export(),
}

CHANGES: dict[str, Callable[[PRUClient], Any]] = {
    "create": lambda client: client.session("the"),
    "import": lambda client: client.import_session(b"blob"),
    "append": lambda client: client.attach("abc").append("the"),
    "rewind": lambda client: client.attach("abc").rewind(0),
    "fork": lambda client: client.attach("abc").fork(),
    "continue": lambda client: client.attach("abc").continue_(),
    "stream": lambda client: list(client.attach("abc").stream()),
}


@pytest.mark.parametrize("failure", PASSING, ids=lambda it: getattr(it, "status_code", type(it).__name__))
def test_what_may_pass_is_tried_again(failure: Any, waits: list[float]) -> None:
    script = Script(failure, failure, told(PREDICTED))
    with script.client() as client:
        assert client.predict("the").token_count == 2
    assert len(script.requests) == 3
    assert len(waits) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("failure", PASSING, ids=lambda it: getattr(it, "status_code", type(it).__name__))
async def test_what_may_pass_is_tried_again_by_asyncio(failure: Any, waits: list[float]) -> None:
    script = Script(failure, failure, told(PREDICTED))
    async with script.async_client() as client:
        assert (await client.predict("the")).token_count == 2
    assert len(script.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422, 500])
def test_what_would_not_pass_is_raised_at_once(status: int, waits: list[float]) -> None:
    script = Script(refused(status))
    with script.client() as client, pytest.raises(APIError):
        client.predict("the")
    assert waits == []


def test_the_last_failure_is_raised_and_no_more_than_asked_for_are_tried(waits: list[float]) -> None:
    script = Script(*[httpx2.ReadError("reset")] * 4, refused(504, "too slow"))
    with script.client(max_retries=4) as client, pytest.raises(APIError, match="too slow"):
        client.predict("the")
    assert len(waits) == 4
    script = Script(httpx2.ConnectError("refused"))
    with script.client(max_retries=0) as client, pytest.raises(ConnectionFailedError, match=r"from pru\.test: refused"):
        client.predict("the")
    script = Script(httpx2.ReadTimeout("slow"))
    with script.client(max_retries=0) as client, pytest.raises(TimedOutError, match="it took too long"):
        client.predict("the")


def test_waits_are_drawn_from_spans_that_double_up_to_a_longest(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = []

    def draw(low: float, high: float) -> float:
        spans.append((low, high))
        return high / 2

    monkeypatch.setattr("pru.client.judging.random.uniform", draw)
    script = Script(*[httpx2.ConnectError("refused")] * 7, told(PREDICTED))
    with script.client(max_retries=7) as client:
        client.predict("the")
    assert spans == [(0.0, high) for high in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)]
    assert (FIRST_WAIT, LONGEST_WAIT) == (0.5, 8.0)
    assert waits == [high / 2 for _, high in spans]


@pytest.mark.parametrize("status", [429, 503])
def test_the_time_that_the_service_asks_for_is_waited_and_a_little_more(status: int, waits: list[float]) -> None:
    script = Script(refused(status), refused(status, Retry_After="12"), told(PREDICTED))
    with script.client() as client:
        client.predict("the")
    assert 1.0 <= waits[0] <= 1.5
    assert 12.0 <= waits[1] <= 13.0


def test_a_date_to_come_back_at_is_kept_and_one_that_is_past_is_now(waits: list[float]) -> None:
    soon, past = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (20, -5000))
    script = Script(
        refused(503, Retry_After=format_datetime(soon, usegmt=True)),
        refused(503, Retry_After=format_datetime(past, usegmt=True)),
        told(PREDICTED),
    )
    with script.client() as client:
        client.predict("the")
    assert 15.0 < waits[0] <= 20.5
    assert waits[1] <= 1.0


@pytest.mark.parametrize("header", ["31", "86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_huge_time_to_wait_is_not_waited_but_told(header: str, waits: list[float]) -> None:
    with Script(refused(429, Retry_After=header)).client() as client, pytest.raises(OverloadedError) as found:
        client.predict("the")
    assert waits == []
    assert found.value.retry_after is not None
    assert found.value.retry_after > 30


@pytest.mark.parametrize("header", ["soon", "-1", "nan", "1e9", "²", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_a_time_to_wait_that_is_none_counts_for_nothing(header: str, waits: list[float]) -> None:
    lost = refused(503, Retry_After="")
    lost.headers = httpx2.Headers([(b"retry-after", header.encode("latin-1")), *lost.headers.raw])
    script = Script(lost, told(PREDICTED))
    with script.client() as client:
        client.predict("the")
    assert waits[0] <= 0.5


@pytest.mark.parametrize("name", READING)
def test_what_changes_nothing_has_no_key(name: str, waits: list[float]) -> None:
    script = Script(*[httpx2.ConnectError("refused")] * 3)
    script.lines[:0] = [told(STANDING)] if name == "export" else []
    with script.client() as client, pytest.raises(ConnectionFailedError) as found:
        READING[name](client)
    assert set(script.keys) == {None}
    assert len(waits) == 2
    assert "changed" not in str(found.value)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_sent_again_to_the_byte_and_under_the_same_key(name: str, waits: list[float]) -> None:
    begun = [told(STANDING)] if name in {"append", "rewind", "fork", "continue", "stream"} else []
    for _ in range(2):
        script = Script(*begun, httpx2.ReadError("reset"), refused(503), httpx2.ReadTimeout("slow"))
        with script.client() as client, pytest.raises(TimedOutError, match="not known"):
            CHANGES[name](client)
        sent = script.requests[len(begun) :]
        assert len(sent) == 3
        assert len({(it.method, it.url, it.content, it.headers["Idempotency-Key"]) for it in sent}) == 1
        assert not begun or "Idempotency-Key" not in script.requests[0].headers


def test_each_change_has_a_key_of_its_own() -> None:
    script = Script(*[told(STANDING)] * 3)
    with script.client() as client:
        session = client.session("the")
        session.rewind(0)
        session.rewind(0)
    assert len(set(script.keys)) == 3
    assert None not in script.keys


def test_a_conflict_with_the_attempt_before_is_asked_again_and_a_first_one_is_not(waits: list[float]) -> None:
    script = Script(told(STANDING), httpx2.ReadTimeout("slow"), refused(409), told({**STANDING, "position": 9}))
    with script.client() as client:
        session = client.session()
        assert session.rewind(9).position == 9
    assert len(waits) == 2
    script = Script(told(STANDING), refused(409))
    with script.client() as client, pytest.raises(ConflictError):
        client.session().rewind(9)
    assert len(waits) == 2


def test_whether_the_service_is_ready_is_asked_once(waits: list[float]) -> None:
    script = Script(refused(503, "the engine is not warm yet"))
    with script.client() as client, pytest.raises(APIError, match="not warm yet"):
        client.ready()
    assert waits == []


@pytest.mark.parametrize("status", [404, 204])
def test_a_session_that_was_ended_by_a_lost_attempt_counts_as_ended(status: int, waits: list[float]) -> None:
    last = refused(404) if status == 404 else httpx2.Response(204)
    script = Script(told(STANDING), httpx2.ReadError("reset"), last)
    with script.client() as client:
        client.session().close()
    assert [request.method for request in script.requests] == ["POST", "DELETE", "DELETE"]
    assert waits


def test_headers_go_with_every_attempt_and_an_address_may_have_a_path(waits: list[float]) -> None:
    script = Script(refused(503), told(PREDICTED))
    headers = {"Authorization": "Bearer abc", "X-Request-Id": "mine"}
    with PRUClient("https://pru.test/api/", headers=headers, transport=script.transport) as client:
        assert isinstance(client.predict("the"), PredictAnswer)
    for request in script.requests:
        assert str(request.url) == "https://pru.test/api/predict"
        assert request.headers["Authorization"] == "Bearer abc"
        assert request.headers["X-Request-Id"] == "mine"


def test_the_address_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(*[told(PREDICTED)] * 3)
    with PRUClient(transport=script.transport) as client:
        client.predict("the")
    monkeypatch.setenv("PRU_URL", "http://elsewhere:9000")
    with PRUClient(transport=script.transport) as client:
        client.predict("the")
    with PRUClient("http://here", transport=script.transport) as client:
        client.predict("the")
    assert [str(request.url) for request in script.requests] == [
        "http://127.0.0.1:8000/predict", "http://elsewhere:9000/predict", "http://here/predict",
    ]  # fmt: skip


def test_times_are_those_asked_for() -> None:
    script = Script(*[told(PREDICTED)] * 3)
    for settings in ({}, {"timeout": 2.0}):
        with script.client(**settings) as client:
            client.predict("the")
    kept, short = (request.extensions["timeout"] for request in script.requests)
    assert kept == {"connect": 5.0, "read": 65.0, "write": 65.0, "pool": None}
    assert short == {"connect": 2.0, "read": 2.0, "write": 2.0, "pool": None}


@pytest.mark.anyio
async def test_asyncio_sends_a_change_again_to_the_byte_and_under_the_same_key(waits: list[float]) -> None:
    async def append(client: AsyncPRUClient) -> None:
        await (await client.attach("abc")).append("the")

    async def write(client: AsyncPRUClient) -> None:
        await (await client.attach("abc")).stream().result()

    for change in (append, write):
        script = Script(told(STANDING), httpx2.ReadError("reset"), refused(503), httpx2.ReadTimeout("slow"))
        async with script.async_client() as client:
            with pytest.raises(TimedOutError, match="not known"):
                await change(client)
        sent = script.requests[1:]
        assert len(sent) == 3
        assert len({(it.method, it.url, it.content, it.headers["Idempotency-Key"]) for it in sent}) == 1
    assert len(waits) == 4
