"""Words of a continuation on their way to a client.

Boundary: what `SessionService.write_on` yields, either waited for to the end or handed on one by one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.running import Running, Tell
from app.session_schemas import ContinueAnswer, GeneratedToken

Item = GeneratedToken | ContinueAnswer


async def last_of(written: AsyncIterator[Item]) -> ContinueAnswer:
    """The answer that comes after all tokens."""
    async for item in written:
        last = item
    assert isinstance(last, ContinueAnswer)
    return last


def running(written: AsyncIterator[Item]) -> Running[Item]:
    """The same, written on whether or not the client reads."""

    async def work(tell: Tell[Item]) -> None:
        async for item in written:
            tell(item)

    return Running(work)
