"""Words of a continuation on their way to a client.

Boundary: what `SessionService.write_on` yields, either waited for to the end or handed on one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.session_schemas import ContinueAnswer, GeneratedToken

Item = GeneratedToken | ContinueAnswer


async def last_of(written: AsyncIterator[Item]) -> ContinueAnswer:
    """The answer that comes after all tokens."""
    async for item in written:
        last = item
    assert isinstance(last, ContinueAnswer)
    return last


class Running:
    """Words written by a task of their own, so that a client that reads slowly holds nothing up.

    What waits to be read is small: at most as many tokens as one request may ask for.
    """

    def __init__(self, written: AsyncIterator[Item]) -> None:
        self._items: asyncio.Queue[Item | Exception] = asyncio.Queue()
        self._task = asyncio.create_task(self._write(written))

    async def _write(self, written: AsyncIterator[Item]) -> None:
        try:
            async for item in written:
                self._items.put_nowait(item)
        except Exception as error:
            self._items.put_nowait(error)

    async def next(self) -> Item:
        """The next token, or the answer at the end; raises what ended the writing."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        """Write no more. What was not finished did not happen."""
        self._task.cancel()
        await asyncio.wait([self._task])
