"""A reading on its way through the scheduler's queue: who waits for it, and what its trace is told.

Boundary: tickets, and what they end as. When a reading is advanced, and with which others, `app.scheduler` decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

from app.reading import Reading, Result
from app.tracing.current import Passage, recorded_trace


class Ticket:
    """A reading in the queue, and who waits for it."""

    __slots__ = ("arrived", "dropped", "future", "loop", "passage", "reading")

    def __init__(self, reading: Reading, loop: asyncio.AbstractEventLoop) -> None:
        self.reading = reading
        self.loop = loop
        self.future: asyncio.Future[Result] = loop.create_future()
        self.dropped = False
        self.arrived = perf_counter()
        trace = recorded_trace()
        self.passage = None if trace is None else Passage(trace, self.arrived)

    @property
    def has_failed(self) -> bool:
        """Whether it came to an error, once it is done."""
        return not self.future.cancelled() and self.future.exception() is not None


Outcome = tuple[Ticket, Result | Exception]


def trace_call(batch: Sequence[Ticket], began: float) -> None:
    """Note a call that has just been made in the traces of those that it served."""
    ended = perf_counter()
    for ticket in batch:
        if ticket.passage is not None:
            ticket.passage.called(began, ended, len(batch))


def tell(outcomes: Sequence[Outcome]) -> None:
    """Give results and errors to those who still wait, on their loop."""
    for ticket, outcome in outcomes:
        if ticket.future.done():
            continue
        if isinstance(outcome, Exception):
            ticket.future.set_exception(outcome)
        else:
            ticket.future.set_result(outcome)
