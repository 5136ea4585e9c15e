"""The engine's thread: what shares a call, who goes first, and what happens to work that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from app import scheduler as scheduler_module
from app.metrics import Metrics
from app.reading import Reading
from app.scheduler import Scheduler
from model.errors import EngineError
from tests.app.fakes import Gate, Ids, NumpyEngine
from tests.app.serving import PATIENCE, until

pytestmark = pytest.mark.anyio

SIZE = 23


def ids(*values: int) -> Ids:
    return np.array(values, np.int32)


def reading(*values: int, urgent: bool = True, targets: Ids | None = None, likely: bool = False) -> Reading:
    state = np.zeros(2 * 8, np.float32)
    return Reading(state, ids(*values), ids() if targets is None else targets, likely=likely, urgent=urgent)


@asynccontextmanager
async def scheduling(engine: NumpyEngine, rows: int = 100) -> AsyncIterator[Scheduler]:
    """A scheduler that lets as many `rows` into a call; the calls of its warm-up are forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_module, "CHUNK_SECONDS", 3600.0)
        patch.setattr(scheduler_module, "ALONE_SECONDS", 3600.0)
        scheduler = Scheduler(lambda: engine, Metrics().of_model("tiny"))
        await scheduler.start()
        for pace in (scheduler._hurried, scheduler._alone):
            pace.rows = {length: float(rows) for length in pace.rows}
        engine.calls.clear()
        engine.head_rows = 0
        try:
            yield scheduler
        finally:
            await asyncio.to_thread(scheduler.close)


@asynccontextmanager
async def held(engine: NumpyEngine, gate: Gate, scheduler: Scheduler) -> AsyncIterator[None]:
    """The engine is busy with a reading of its own for the block; then it sees all that has arrived meanwhile."""
    gate.shut()
    busy = asyncio.create_task(scheduler.read(reading(9)))
    await gate.wait_until_reached()
    engine.calls.clear()
    yield
    await asyncio.sleep(0)
    gate.open.set()
    await busy


async def test_all_calls_of_the_engine_are_made_on_one_thread_of_its_own() -> None:
    engine = NumpyEngine(SIZE)
    async with scheduling(engine) as scheduler:
        await asyncio.gather(*(scheduler.read(reading(0, n, likely=True)) for n in range(8)))
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


async def test_starting_runs_every_graph_before_the_first_request() -> None:
    engine = NumpyEngine(SIZE)
    scheduler = Scheduler(lambda: engine, Metrics().of_model("tiny"))
    assert await scheduler.start() is engine
    assert {length for _, length in engine.calls} == set(engine.step_lengths)
    assert engine.head_rows > 0
    scheduler.close()


async def test_what_waits_is_advanced_together_and_what_arrives_joins_at_the_next_step() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    loop = asyncio.get_running_loop()
    async with scheduling(engine) as scheduler:
        late: list[asyncio.Task[object]] = []

        def let_another_arrive_during_the_second_call() -> None:
            gate()
            if len(engine.calls) == 2:
                loop.call_soon_threadsafe(lambda: late.append(asyncio.create_task(scheduler.read(reading(7, 8)))))
                until(lambda: bool(scheduler._arrived))

        async with held(engine, gate, scheduler):
            waiting = [asyncio.create_task(scheduler.read(reading(*range(1, 1 + n)))) for n in (1, 2, 3)]
            engine.before = let_another_arrive_during_the_second_call
        await asyncio.gather(*waiting)
        await asyncio.gather(*late)
    # Of three readings one ends with each step; the late one reads the third step with the last of them.
    assert engine.calls == [(3, 1), (2, 1), (2, 1), (1, 1)]


async def test_long_readings_take_the_longest_steps_that_leave_room_for_all_of_them() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with scheduling(engine, rows=4) as scheduler:
        scheduler._hurried.rows[16] = 2.0
        async with held(engine, gate, scheduler):
            alone = asyncio.create_task(scheduler.read(reading(*[1] * 21)))
        await alone
        assert engine.calls == [(1, 16), (1, 4), (1, 1)]
        async with held(engine, gate, scheduler):
            three = [asyncio.create_task(scheduler.read(reading(*[1] * 16))) for _ in range(3)]
        await asyncio.gather(*three)
        assert engine.calls == [(3, 4)] * 4


async def test_urgent_readings_go_first_and_patient_ones_get_their_turn() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with scheduling(engine, rows=1) as scheduler:
        async with held(engine, gate, scheduler):
            done: list[str] = []

            async def read(name: str, *, urgent: bool) -> None:
                await scheduler.read(reading(1, urgent=urgent))
                done.append(name)

            patient = [asyncio.create_task(read("patient", urgent=False)) for _ in range(2)]
            urgent = [asyncio.create_task(read("urgent", urgent=True)) for _ in range(6)]
        await asyncio.gather(*patient, *urgent)
    assert sorted(done[:-1]).count("patient") <= 2
    assert done.index("patient") >= 1 or done[0] == "patient"
    first, second = (place for place, name in enumerate(done) if name == "patient")
    assert second - first == scheduler_module.TURNS
    assert done.count("urgent") == 6


async def test_calls_are_long_only_while_nothing_urgent_comes() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with scheduling(engine) as scheduler:
        for length in (16, 4):
            del scheduler._hurried.rows[length]
        scheduler._last_urgent = -1e9
        await scheduler.read(reading(*[1] * 16, urgent=False))
        assert engine.calls == [(1, 16)]
        await scheduler.read(reading(1))
        engine.calls.clear()
        await scheduler.read(reading(*[1] * 16, urgent=False))
        assert engine.calls == [(1, 1)] * 16


async def test_a_reading_cancelled_while_it_waits_is_never_computed() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with scheduling(engine) as scheduler:
        async with held(engine, gate, scheduler):
            waiting = asyncio.create_task(scheduler.read(reading(*range(5))))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await scheduler.read(reading(1))
    assert engine.calls == [(1, 1)]


async def test_a_reading_cancelled_while_it_runs_stops_at_its_next_step() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    async with scheduling(engine) as scheduler:
        gate.shut()
        running = asyncio.create_task(scheduler.read(reading(*[1] * 1000)))
        await gate.wait_until_reached()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.open.set()
        await scheduler.read(reading(1))
    assert engine.calls == [(1, 16), (1, 1)]


@pytest.mark.parametrize("error", [EngineError("no memory"), MemoryError(), RuntimeError("broken")])
async def test_a_call_that_fails_fails_its_own_readings_and_the_next_one_works(error: Exception) -> None:
    def fail() -> None:
        raise error

    engine = NumpyEngine(SIZE)
    async with scheduling(engine) as scheduler:
        engine.before = fail
        with pytest.raises(type(error)):
            await scheduler.read_all([reading(0), reading(1)])
        engine.before = None
        assert (await scheduler.read(reading(0, likely=True))).likely is not None


@pytest.mark.parametrize(
    "part",
    ["_collect", "_next_batch", "_note", "_hand_out", "_hurried.length", "_hurried.learn", "metrics.queued.observe"],
)
async def test_a_thread_that_dies_fails_all_that_waits_what_is_in_its_hands_and_what_comes_after_and_says_so(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    deaths: list[Exception] = []
    gate = Gate()
    scheduler = Scheduler(lambda: NumpyEngine(SIZE, before=gate), Metrics().of_model("tiny"), deaths.append)
    await scheduler.start()
    for pace in (scheduler._hurried, scheduler._alone):
        pace.rows = dict.fromkeys(pace.rows, 1.0)
    monkeypatch.setattr(scheduler, "_alone", scheduler._hurried)
    gate.shut()
    waiting = [asyncio.create_task(scheduler.read(reading(n, n, urgent=n % 2 == 0))) for n in range(4)]
    await gate.wait_until_reached()
    dies = True

    def die_once(*arguments: Any) -> Any:
        nonlocal dies
        if dies:
            dies = False
            raise ZeroDivisionError
        return whole(*arguments)

    *owners, name = part.split(".")
    owner: Any = scheduler
    for step in owners:
        owner = getattr(owner, step)
    whole = getattr(owner, name)
    monkeypatch.setattr(owner, name, die_once)
    gate.open.set()
    async with asyncio.timeout(PATIENCE):
        for task in waiting:
            with pytest.raises(EngineError, match="the engine has stopped"):
                await task
    with pytest.raises(EngineError, match="the engine has stopped"):
        await scheduler.read(reading(1))
    scheduler.close()
    assert [type(error) for error in deaths] == [ZeroDivisionError]


async def test_an_engine_that_cannot_be_built_raises_where_it_was_asked_for() -> None:
    def fail() -> NumpyEngine:
        raise EngineError("no such precision")

    scheduler = Scheduler(fail, Metrics().of_model("tiny"))
    with pytest.raises(EngineError, match="no such precision"):
        await scheduler.start()
    scheduler.close()


async def test_closing_lets_what_waits_finish() -> None:
    gate = Gate()
    engine = NumpyEngine(SIZE, before=gate)
    scheduler = Scheduler(lambda: engine, Metrics().of_model("tiny"))
    await scheduler.start()
    gate.shut()
    running = asyncio.create_task(scheduler.read(reading(0, 1, 2)))
    await gate.wait_until_reached()
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    await asyncio.sleep(0.05)
    assert not closing.done()
    gate.open.set()
    assert (await running).state.any()
    await closing
