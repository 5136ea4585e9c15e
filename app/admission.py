"""Which requests are let in, and for how long: so many at once, with so many tokens, each until its deadline.

Boundary: counts requests, tokens and seconds on the event loop. What a request then does, on which thread, is not its
business; all of it is covered, from reading the text to making the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.access.caller import caller
from app.errors import DeadlineError, OverloadedError
from app.metrics import Metrics
from model.errors import RequestError

Claim = Callable[[int], None]
"""Says how many tokens a request brings, once that is known; `OverloadedError` where they are too many just now.

They are charged to the caller, who may have no more of them: see `app.access.caller.Caller.charge`."""


class Admission:
    """Lets one request through and `waiting` more in, each for `deadline` seconds (None: as long as it takes).

    All of them together may bring `tokens`; one that is alone may bring any number.
    """

    def __init__(self, waiting: int, tokens: int, deadline: float | None, metrics: Metrics) -> None:
        self._waiting = waiting
        self._most_tokens = tokens
        self._deadline = deadline
        self._metrics = metrics
        self._inside = 0
        self._tokens = 0

    @property
    def inside(self) -> int:
        """Requests that are being served or wait."""
        return self._inside

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[Claim]:
        """Be inside for the block; `OverloadedError` where there is no room, `DeadlineError` past the deadline."""
        if self._inside > self._waiting:
            raise OverloadedError(f"more than {self._waiting} requests wait for the engine; try again in a moment")
        claimed = 0

        def claim(tokens: int) -> None:
            nonlocal claimed
            if self._tokens and self._tokens + tokens > self._most_tokens:
                raise OverloadedError(
                    f"requests with {self._tokens} tokens wait for the engine, of at most {self._most_tokens}; "
                    "try again in a moment"
                )
            caller().charge(tokens)
            self._tokens += tokens
            claimed += tokens

        self._inside += 1
        self._metrics.inside.inc()
        try:
            async with asyncio.timeout(self._deadline):
                yield claim
        except TimeoutError:
            raise DeadlineError(
                f"not done within {self._deadline:g} seconds, the server's PRU_DEADLINE_SECONDS; send less text at a "
                "time, or try again when it is quieter"
            ) from None
        except RequestError:
            # Refused for what it asks, before the engine was asked for anything.
            caller().give_back(claimed)
            raise
        finally:
            self._inside -= 1
            self._metrics.inside.dec()
            self._tokens -= claimed
