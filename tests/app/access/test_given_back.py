"""What a request was charged to write and did not write is its caller's again, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.access.caller import CALLER, Caller
from app.lifecycle import Lifecycle
from app.openai_schemas import Choice, CompletionRequest
from app.session_schemas import ContinueRequest, CreateRequest
from tests.app.access.keys import guarded, make_key
from tests.app.fakes import Gate, NumpyEngine, fake_model
from tests.app.serving import PATIENCE, make_app, ready, starting

ALICE = make_key("alice")
MOST = 1000


class Counting(Caller):
    """Somebody whose tokens are counted."""

    def __init__(self) -> None:
        self.charged = 0

    def charge(self, tokens: int) -> None:
        self.charged += tokens

    def give_back(self, tokens: int) -> None:
        self.charged -= tokens


class Failing:
    """What the engine does before each call: nothing, or it fails."""

    error: Exception | None = None

    def __call__(self) -> None:
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def counted(before: Callable[[], None]) -> AsyncIterator[tuple[Lifecycle, Counting]]:
    """A ready service whose engine does something before each call, and the caller of this task."""
    app = make_app(fake_model(build=lambda size: NumpyEngine(size, before=before)))
    async with starting(app) as client:
        await ready(client)
        caller = Counting()
        token = CALLER.set(caller)
        yield app.state.lifecycle, caller
        CALLER.reset(token)


async def stopped(task: asyncio.Task[Any], gate: Gate) -> None:
    """End a task at the engine's door, once it has shut that."""
    async with asyncio.timeout(PATIENCE):
        while gate.open.is_set():
            await asyncio.sleep(0.001)
    await gate.wait_until_reached()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.anyio
async def test_a_continuation_that_is_given_up_costs_what_was_written() -> None:
    gate = Gate()
    async with counted(gate) as (lifecycle, caller):
        session = await lifecycle.sessions.create(CreateRequest(text="the"))
        told = []

        async def write() -> None:
            async for item in lifecycle.sessions.write_on(
                session.session_id, ContinueRequest(max_tokens=MOST, seed=1, stop=[])
            ):
                told.append(item)
                if len(told) == 2:
                    gate.shut()

        await stopped(asyncio.create_task(write()), gate)
        gate.open.set()
        assert len(told) == 2
        assert caller.charged in (1 + 2, 1 + 3)  # That of the session; the third may have been drawn, and not told.


@pytest.mark.anyio
@pytest.mark.parametrize("choices", [1, 3])
async def test_a_completion_that_is_given_up_costs_what_was_written(choices: int) -> None:
    gate = Gate()
    async with counted(gate) as (lifecycle, caller):
        told: list[Choice] = []

        def tell(piece: Choice) -> None:
            told.append(piece)
            if len(told) == 2 * choices:
                gate.shut()

        request = CompletionRequest(prompt="the", n=choices, max_tokens=MOST, logprobs=0, seed=1)
        await stopped(asyncio.create_task(lifecycle.models.default.completions.write(request, tell)), gate)
        gate.open.set()
        written = sum(len(piece.logprobs.tokens) for piece in told if piece.logprobs)
        assert written >= 2 * choices
        assert caller.charged == 1 + written


@pytest.mark.anyio
async def test_what_the_engine_fails_at_costs_what_was_written() -> None:
    failing = Failing()
    async with counted(failing) as (lifecycle, caller):
        session = await lifecycle.sessions.create(CreateRequest(text="the"))
        before = caller.charged
        failing.error = MemoryError()
        with pytest.raises(MemoryError):
            async for _ in lifecycle.sessions.write_on(session.session_id, ContinueRequest(max_tokens=MOST, stop=[])):
                pass
        assert caller.charged == before
        with pytest.raises(MemoryError):
            await lifecycle.models.default.completions.write(
                CompletionRequest(prompt="harbour", max_tokens=MOST), lambda _: None
            )
        assert caller.charged == before + 1


def test_a_holder_whose_continuations_ended_early_may_ask_for_as_much_again() -> None:
    with guarded(ALICE, limits={"alice": {"tokens_per_minute": MOST + 50}}) as client:

        def ask(path: str, **fields: Any) -> Any:
            response = client.post(path, json=fields, headers=ALICE.headers)
            assert response.status_code in (200, 201), response.text
            return response.json()

        path = f"/sessions/{ask('/sessions', text='the')['session_id']}"
        fields = {"max_tokens": 5, "temperature": 0, "commit": False}
        first = ask(f"{path}/continue", **fields)["tokens"][0]["text"].strip()
        for _ in range(3):
            ended = ask(f"{path}/continue", **{**fields, "max_tokens": MOST, "stop": [first]})
            assert (ended["finish_reason"], ended["tokens"]) == ("stop", [])
        with client.websocket_connect(f"{path}/stream", headers=ALICE.headers) as socket:
            for number in range(3):
                socket.send_json({"id": number, "type": "continue", "stream": True, "max_tokens": MOST, "seed": number})
                assert socket.receive_json()["type"] == "token"
                socket.send_json({"id": "stop", "type": "cancel", "target": number})
                while (kind := socket.receive_json()["type"]) != "cancelled":
                    assert kind in ("token", "cancel")
