"""Which requests are let in, and for how long: at most so many at once, each until its deadline.

Boundary: counts requests and seconds on the event loop. What a request then does, on which thread, is not its business;
all of it is covered, from reading the text to making the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import DeadlineError, OverloadedError


class Admission:
    """Lets one request through and `waiting` more in, each for `deadline` seconds (None: as long as it takes)."""

    def __init__(self, waiting: int, deadline: float | None) -> None:
        self._waiting = waiting
        self._deadline = deadline
        self._inside = 0

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Be inside for the block; `OverloadedError` where there is no room, `DeadlineError` past the deadline."""
        if self._inside > self._waiting:
            raise OverloadedError(f"more than {self._waiting} requests wait for the engine; try again in a moment")
        self._inside += 1
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except TimeoutError:
            raise DeadlineError(
                f"not done within {self._deadline:g} seconds; send less text at a time, or try again when it is quieter"
            ) from None
        finally:
            self._inside -= 1
