"""A change asked of the store is seen through, whatever its task is told meanwhile, and one not made is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.errors import StoreError
from app.sessions.commit import seen_through


class Change:
    """A change that is under way until it is settled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> Any:
        self.begun.set()
        return await self.outcome


async def told_to_stop(change: Change, times: int = 1) -> asyncio.Task[Any]:
    """A task that waits for a change and was told to stop so often, each time anew."""
    task = asyncio.create_task(seen_through(change()))
    await change.begun.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    return task


@pytest.mark.anyio
@pytest.mark.parametrize("result", [True, None])
async def test_a_task_told_to_stop_too_late_has_the_result_and_is_told_nothing_any_more(result: bool | None) -> None:
    change = Change()
    task = await told_to_stop(change, 3)
    change.outcome.set_result(result)
    assert await task is result
    assert task.cancelling() == 0


@pytest.mark.anyio
async def test_a_change_that_failed_by_itself_says_why_to_a_task_told_to_stop() -> None:
    change = Change()
    task = await told_to_stop(change)
    change.outcome.set_exception(StoreError("somewhere", "is full", "make room"))
    with pytest.raises(StoreError, match="is full"):
        await task


@pytest.mark.anyio
async def test_a_task_told_to_stop_stops_where_nothing_was_made_of_its_change() -> None:
    change = Change()
    task = await told_to_stop(change)
    change.outcome.set_result(False)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.anyio
async def test_a_task_told_nothing_has_what_came_of_its_change() -> None:
    for result in (True, False):
        change = Change()
        change.outcome.set_result(result)
        assert await seen_through(change()) is result


@pytest.mark.anyio
async def test_a_deadline_that_passes_meanwhile_counts_only_where_nothing_was_made() -> None:
    async def answered(result: bool) -> bool:
        change = Change()
        asyncio.get_running_loop().call_later(0.05, change.outcome.set_result, result)
        async with asyncio.timeout(0.01):
            return await seen_through(change())

    assert await answered(True)
    with pytest.raises(TimeoutError):
        await answered(False)
    # Neither leaves anything to a deadline that comes after it.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
