"""Which requests are let in, and until when."""

from __future__ import annotations

import asyncio

import pytest

from app.admission import Admission
from app.errors import DeadlineError, OverloadedError

pytestmark = pytest.mark.anyio


async def test_one_request_runs_and_as_many_as_the_limit_wait_and_more_are_refused() -> None:
    admission = Admission(2, None)
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
    admission = Admission(0, 0.05)
    for _ in range(2):
        with pytest.raises(DeadlineError, match=r"not done within 0\.05 seconds"):
            async with admission.admit():
                await asyncio.sleep(20)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_request_that_fails_makes_room_and_keeps_its_error(error: type[BaseException]) -> None:
    admission = Admission(0, 20)
    for _ in range(2):
        with pytest.raises(error):
            async with admission.admit():
                raise error
