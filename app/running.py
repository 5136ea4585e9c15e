"""Answers that are sent piece by piece, each made at its own pace.

Boundary: pieces of any kind, on the event loop. What they are, and how they are sent, others know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

Tell = Callable[[T], None]


class Running(Generic[T]):
    """Pieces made by a task of their own, so that a client that reads slowly holds nothing up.

    What waits to be read is small: at most as many tokens as one request may ask for.
    """

    def __init__(self, work: Callable[[Tell[T]], Awaitable[None]]) -> None:
        """`work` is given where to put each piece."""
        self._items: asyncio.Queue[T | Exception] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[Tell[T]], Awaitable[None]]) -> None:
        try:
            await work(self._items.put_nowait)
        except Exception as error:
            self._items.put_nowait(error)

    async def first(self) -> T:
        """The first piece. What can be refused is refused here, before a stream begins, and nothing goes on."""
        try:
            return await self.next()
        except BaseException:
            await self.close()
            raise

    async def next(self) -> T:
        """The next piece; raises what ended the work."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        """Make no more. What was not finished did not happen."""
        self._task.cancel()
        await asyncio.wait([self._task])
