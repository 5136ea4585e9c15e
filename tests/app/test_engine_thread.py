"""The engine's thread: its order, its warm-up, and work that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app import scoring
from app.engine_thread import EngineThread
from model.errors import EngineError
from tests.app.fakes import Gate, Ids, NumpyEngine

pytestmark = pytest.mark.anyio

SIZE = 23


def ids(*values: int) -> Ids:
    return np.array(values, np.int32)


@asynccontextmanager
async def engine_thread(engine: NumpyEngine) -> AsyncIterator[EngineThread]:
    thread = EngineThread(lambda: engine)
    await thread.start()
    engine.calls.clear()
    try:
        yield thread
    finally:
        await asyncio.to_thread(thread.close)


async def test_all_calls_of_the_engine_are_made_on_one_thread_of_its_own() -> None:
    engine = NumpyEngine(SIZE)
    async with engine_thread(engine) as thread:
        await asyncio.gather(*(thread.top_k(ids(0, n), 3) for n in range(8)), thread.score(ids(0), [ids(1, 2)]))
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


async def test_starting_warms_the_engine_up_before_the_first_request() -> None:
    engine = NumpyEngine(SIZE)
    thread = EngineThread(lambda: engine)
    assert await thread.start() is engine
    assert len(engine.calls) >= 2
    thread.close()


async def test_predictions_read_the_prompt_once_and_pay_for_one_softmax() -> None:
    engine = NumpyEngine(SIZE)
    rows: list[int] = []
    plain = engine.log_probabilities

    def counted(hidden: scoring.Floats) -> scoring.Floats:
        rows.append(len(hidden))
        return plain(hidden)

    async with engine_thread(engine) as thread:
        engine.log_probabilities = counted  # type: ignore[method-assign]
        best, values = await thread.top_k(ids(0, 1, 2, 3), 4)
        everything = await thread.log_probabilities(ids(0, 1, 2, 3))
    assert engine.calls == [(1, 4), (1, 4)]
    assert rows == [1, 1]
    assert values.tolist() == everything[best].tolist()


async def test_a_request_cancelled_while_it_waits_is_never_computed() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with engine_thread(engine) as thread:
        gate.shut()
        running = asyncio.create_task(thread.top_k(ids(0), 1))
        await gate.wait_until_reached()
        waiting = asyncio.create_task(thread.top_k(ids(0, 1, 2, 3, 4), 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open.set()
        await running
        await thread.top_k(ids(0, 1), 1)
    assert engine.calls == [(1, 1), (1, 2)]


async def test_a_request_cancelled_while_it_runs_stops_at_its_next_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 4)
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with engine_thread(engine) as thread:
        gate.shut()
        running = asyncio.create_task(thread.score(ids(0), [np.zeros(1000, np.int32)]))
        await gate.wait_until_reached()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.open.set()
        await thread.top_k(ids(0, 1), 1)
    assert engine.calls == [(1, 1), (1, 2)]


async def test_an_engine_that_fails_fails_its_request_alone() -> None:
    def fail() -> None:
        raise EngineError("no memory")

    engine = NumpyEngine(SIZE)
    async with engine_thread(engine) as thread:
        engine.before = fail
        with pytest.raises(EngineError, match="no memory"):
            await thread.top_k(ids(0), 1)
        engine.before = None
        assert len((await thread.top_k(ids(0), 3))[0]) == 3


async def test_closing_lets_the_running_job_finish() -> None:
    gate = Gate()
    thread = EngineThread(lambda: NumpyEngine(SIZE, before=gate))
    await thread.start()
    gate.shut()
    running = asyncio.create_task(thread.top_k(ids(0), 3))
    await gate.wait_until_reached()
    closing = asyncio.create_task(asyncio.to_thread(thread.close))
    await asyncio.sleep(0.05)
    assert not closing.done()
    gate.open.set()
    assert len((await running)[0]) == 3
    await closing
