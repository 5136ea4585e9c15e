"""Which requests are let in, and until when."""

from __future__ import annotations

import asyncio

import pytest

from app.admission import Admission
from app.errors import DeadlineError, OverloadedError
from app.metrics import Metrics

pytestmark = pytest.mark.anyio


async def test_one_request_runs_and_as_many_as_the_limit_wait_and_more_are_refused() -> None:
    admission = Admission(2, 1, None, Metrics())
    end = asyncio.Event()

    async def request() -> str:
        async with admission.admit():
            await end.wait()
            return "answered"

    inside = [asyncio.create_task(request()) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="more than 2 requests wait"):
        await request()
    end.set()
    assert await asyncio.gather(*inside) == ["answered"] * 3
    assert await request() == "answered"


async def test_a_request_past_its_deadline_is_given_up_and_makes_room() -> None:
    admission = Admission(0, 1, 0.05, Metrics())
    for _ in range(2):
        with pytest.raises(DeadlineError, match=r"not done within 0\.05 seconds, the server's PRU_DEADLINE_SECONDS; "):
            async with admission.admit():
                await asyncio.sleep(20)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_request_that_fails_makes_room_and_keeps_its_error(error: type[BaseException]) -> None:
    admission = Admission(0, 1, 20, Metrics())
    for _ in range(2):
        with pytest.raises(error):
            async with admission.admit():
                raise error


async def test_tokens_of_all_requests_inside_are_bounded_and_one_alone_may_bring_any_number() -> None:
    admission = Admission(5, 100, None, Metrics())
    async with admission.admit() as first:
        first(1000)
        async with admission.admit() as second:
            with pytest.raises(OverloadedError, match="requests with 1000 tokens wait for the engine, of at most 100"):
                second(1)
    async with admission.admit() as first, admission.admit() as second, admission.admit() as third:
        first(60)
        second(40)
        with pytest.raises(OverloadedError):
            third(1)
    async with admission.admit() as first:
        first(100)
