"""A change asked of the store, seen through: the store makes it whether or not whoever asked for it still waits.

Boundary: one change and the task that waits for it. Why a task may be told to stop (a deadline, a client that left, or
one that cancels) is the business of those who tell it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def seen_through(change: Coroutine[Any, Any, T]) -> T:
    """What became of a change: its result or its error, waited for also by a task that is told to stop meanwhile.

    It was told too late where the change was made, or failed by itself: that is what there is to answer then, and the
    cancellation is taken back. Where the result is False, nothing was made of it, and the task stops as it was told.
    """
    task = asyncio.current_task()
    assert task is not None
    told_before = task.cancelling()
    asked = asyncio.ensure_future(change)
    stop: asyncio.CancelledError | None = None
    while not asked.done():
        try:
            await asyncio.wait([asked])
        except asyncio.CancelledError as error:
            stop = error
    if stop is not None and not asked.cancelled() and asked.exception() is None and asked.result() is False:
        raise stop
    while task.cancelling() > told_before:
        task.uncancel()
    return asked.result()
