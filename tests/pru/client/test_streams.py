"""Streams: every token once, the session where it stands, and streams that break."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from pru import (
    AnswerError,
    APIError,
    AsyncPRUClient,
    BrokenStreamError,
    ConflictError,
    ConnectionFailedError,
    PRUClient,
)
from pru.client.options import WriteOptions
from tests.app.processes import Service
from tests.pru.client.network import Cut, network_to
from tests.pru.client.script import STANDING, Script, done, events, refused, token, told

OPTIONS: WriteOptions = {"max_tokens": 12, "seed": 4}
TOKEN_EVENT = b"event: token"
DONE = b"event: done"


def texts(script: Script, **options: Any) -> list[str]:
    """What a new session's stream brings by a script."""
    script.lines.insert(0, told(STANDING))
    with script.client() as client, client.session().stream(**options) as stream:
        return [token.text for token in stream]


def test_a_stream_that_breaks_goes_on_after_the_tokens_that_were_handed_out(waits: list[float]) -> None:
    script = Script(
        events(token(" a")),
        httpx2.ConnectError("refused"),
        events(token(" a"), token(" b")),
        events(token(" a"), token(" b"), token(" c"), done(3)),
    )
    script.lines.insert(0, told(STANDING))
    with script.client(max_retries=3) as client:
        session = client.session()
        stream = session.stream()
        assert [token.text for token in stream] == [" a", " b", " c"]
        assert stream.result().text == " a b c"
        assert (session.position, list(stream)) == (3, [])
    asked = [json.loads(request.content) for request in script.requests[1:]]
    assert asked == [asked[0]] * 4
    assert isinstance(asked[0]["seed"], int)
    assert asked[0]["expected_position"] == 0
    assert len(set(script.keys[1:])) == 1
    assert len(waits) == 3


def test_a_seed_that_is_given_is_sent_and_one_that_is_not_is_drawn(waits: list[float]) -> None:
    script = Script(*[events(done(0))] * 3)
    script.lines[1:1] = [told(STANDING)]
    texts(script, seed=9)
    script.lines = [told(STANDING), events(done(0)), told(STANDING), events(done(0))]
    with script.client() as client:
        for options in ({}, {"seed": None}):
            list(client.session().stream(**options))  # type: ignore[arg-type]
    seeds = [json.loads(request.content)["seed"] for request in script.requests[1::2]]
    assert seeds[0] == 9
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("second", [[token(" a"), token(" x")], [token(" x")], [done(1)]])
def test_other_words_after_a_break_are_an_error_and_never_a_text(second: list[Any], waits: list[float]) -> None:
    script = Script(told(STANDING), events(token(" a"), token(" b")), events(*second), told(STANDING))
    with script.client() as client:
        session = client.session()
        with session.stream() as stream, pytest.raises(BrokenStreamError, match="look where the session stands"):
            list(stream)
        with pytest.raises(BrokenStreamError):
            stream.result()
        assert session.position == 0


def test_an_error_on_the_way_is_raised_and_one_that_may_pass_is_tried_again(waits: list[float]) -> None:
    def failure(status: int) -> tuple[str, dict[str, Any]]:
        return "error", {"title": "Failed", "status": status, "detail": "so it is", "request_id": "id-2"}

    with pytest.raises(APIError, match=r"500 Failed: so it is \(request id-2\)"):
        texts(Script(events(token(" a"), failure(500))))
    assert waits == []
    again = events(token(" a"), token(" b"), done(2))
    assert texts(Script(events(token(" a"), failure(504)), again)) == [" a", " b"]
    assert len(waits) == 1
    with pytest.raises(ConflictError):
        texts(Script(refused(409, "the session stands elsewhere")))
    with pytest.raises(ConnectionFailedError, match="before its event done"):
        texts(Script(*[events(token(" a"))] * 3))


@pytest.mark.parametrize(
    "line",
    [
        events(("token", {"text": "a"})),
        events(token(" a"), ("done", {})),
        events(("error", {})),
        told(STANDING),
        httpx2.Response(200, content=b"event: token\ndata: {", headers={"Content-Type": "text/event-stream"}),
    ],
)
def test_a_stream_that_is_none_of_the_services_is_an_error(line: httpx2.Response, waits: list[float]) -> None:
    with pytest.raises((AnswerError, ConnectionFailedError)):
        texts(Script(*[line] * 3))


def test_events_of_other_kinds_are_passed_over() -> None:
    assert texts(Script(events(("ping", {}), token(" a"), ("later", {"x": 1}), done(1)))) == [" a"]


@pytest.mark.parametrize("cut", [Cut(0), Cut(0, DONE), Cut(900), Cut(900, DONE), Cut(1500, DONE)])
def test_a_stream_over_a_network_that_breaks_is_the_unbroken_one(
    service: Service, cut: Cut, waits: list[float]
) -> None:
    """Before the first token or after some, with all of it written by the service already or not."""
    with network_to(service.port) as (network, url), PRUClient(service.url) as near, PRUClient(url) as far:
        expected = near.session("the harbour").continue_(**OPTIONS)
        session = far.session("the harbour")
        network.cuts.append(cut)
        with session.stream(**OPTIONS) as stream:
            assert list(stream) == expected.tokens
        assert stream.result().text == expected.text
        assert len(waits) == 1
        assert session.position == near.attach(session.id).position == 14
        assert session.append("is").position == 15


@pytest.mark.anyio
@pytest.mark.parametrize("cut", [Cut(0, DONE), Cut(900), Cut(900, DONE)])
async def test_asyncio_takes_a_broken_stream_up_again(service: Service, cut: Cut, waits: list[float]) -> None:
    with network_to(service.port) as (network, url), PRUClient(service.url) as near:
        expected = near.session("the harbour").continue_(**OPTIONS)
        async with AsyncPRUClient(url) as far:
            session = await far.session("the harbour")
            network.cuts.append(cut)
            async with session.stream(**OPTIONS) as stream:
                assert [token async for token in stream] == expected.tokens
            assert session.position == near.attach(session.id).position == 14


def test_who_leaves_a_stream_finds_out_where_the_session_stands(service: Service) -> None:
    with PRUClient(service.url) as client, client.session("the") as session:
        with session.stream(max_tokens=1000) as stream:
            next(stream)
        with pytest.raises(BrokenStreamError, match="left before its end"):
            stream.result()
        assert session.position == 1
        # An empty text waits for its turn, after which the service has written all or given up.
        position = client.attach(session.id).append().position
        assert position in {1, 1001}
        assert session.refresh().position == position
        assert session.append("harbour").position == position + 1
        with session.stream(max_tokens=5, commit=False) as stream:
            next(stream)
        assert session.append("is").position == position + 2


@pytest.mark.anyio
async def test_a_task_that_is_cancelled_leaves_the_client_and_its_connections_usable(service: Service) -> None:
    async with AsyncPRUClient(service.url) as client, client.session("the") as session:

        async def write() -> None:
            async for _ in session.stream(max_tokens=1000, commit=False):
                begun.set()

        for _ in range(5):
            begun = asyncio.Event()
            task = asyncio.create_task(write())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await session.append("harbour")).position == 2
        given_up = 0
        for number in range(30):
            appending = asyncio.create_task(session.append("is"))
            await asyncio.sleep(0.0002 * number)
            given_up += appending.cancel()
            # The one before may have been read after all, and then this one is not.
            with suppress(asyncio.CancelledError, ConflictError):
                await appending
            await session.refresh()
        assert given_up > 5
        with suppress(ConflictError):
            await session.append()
        position = (await session.refresh()).position
        assert 2 <= position <= 32
        assert (await session.append("small")).position == position + 1
