"""Answers that are sent piece by piece, each made at its own pace.

Boundary: pieces of any kind, on the event loop. What they are, and how they are sent, others know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Tell = Callable[[T], None]


class Running(Generic[T]):
    """Pieces made by a task of their own, so that a client that reads slowly holds nothing up.

    What waits to be read is small: at most as many tokens as one request may ask for.
    """

    def __init__(
        self, work: Callable[[Tell[T]], Coroutine[Any, Any, None]], held: AbstractContextManager[object] | None = None
    ) -> None:
        """`work` is given where to put each piece; `held` is entered now and left when it has ended, however it did."""
        self._items: asyncio.Queue[T | BaseException] = asyncio.Queue()
        self._held = held or nullcontext()
        self._held.__enter__()
        self._task = asyncio.create_task(work(self._items.put_nowait))
        # Not within the task: one that is cancelled before its first step takes none.
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Let go of what is held, and tell what ended the work before its end."""
        self._held.__exit__(None, None, None)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._items.put_nowait(error)

    async def first(self) -> T:
        """The first piece. What can be refused is refused here, before a stream begins, and nothing goes on."""
        try:
            return await self.next()
        except BaseException:
            await self.close()
            raise

    async def next(self) -> T:
        """The next piece; raises what ended the work, `CancelledError` where it was told to stop."""
        item = await self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def stop(self) -> bool:
        """Tell the work to stop; False where it has ended. It goes on with what it can no more take back."""
        return self._task.cancel()

    async def close(self) -> None:
        """Make no more. What was not finished did not happen."""
        self._task.cancel()
        await asyncio.wait([self._task])
