"""Answers made piece by piece: what comes, how it ends, and what is held until it has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.running import Running, Tell


class Held:
    """Something that is held or not."""

    def __init__(self) -> None:
        self.times: list[str] = []

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.times.append("held")
        yield
        self.times.append("let go")


async def three(tell: Tell[int]) -> None:
    for number in range(3):
        tell(number)
        await asyncio.sleep(0)


async def failing(tell: Tell[int]) -> None:
    tell(0)
    raise ValueError("on the way")


async def endless(tell: Tell[int]) -> None:
    tell(0)
    await asyncio.Event().wait()


@pytest.mark.anyio
async def test_pieces_come_in_their_order_and_then_what_ended_the_work() -> None:
    held = Held()
    running = Running(three, held.hold())
    assert [await running.first(), await running.next(), await running.next()] == [0, 1, 2]
    await running.close()
    assert not running.stop()
    assert held.times == ["held", "let go"]
    running = Running(failing, held.hold())
    assert await running.first() == 0
    with pytest.raises(ValueError, match="on the way"):
        await running.next()
    assert held.times == ["held", "let go"] * 2


@pytest.mark.anyio
async def test_work_told_to_stop_says_so_to_who_waits_for_a_piece() -> None:
    held = Held()
    running = Running(endless, held.hold())
    assert await running.next() == 0
    assert running.stop()
    with pytest.raises(asyncio.CancelledError):
        await running.next()
    assert held.times == ["held", "let go"]


@pytest.mark.anyio
async def test_what_is_held_is_held_at_once_and_let_go_by_work_that_never_began() -> None:
    held = Held()
    running = Running(endless, held.hold())
    assert held.times == ["held"]
    assert running.stop()
    with pytest.raises(asyncio.CancelledError):
        await running.first()
    assert held.times == ["held", "let go"]
