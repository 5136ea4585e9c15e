"""The trace of the task that runs, and what the service says of its work there.

Boundary: names, times and numbers in; what becomes of them is `app.tracing.spans`'. Where nothing is traced there is
no trace, and whoever asks has looked at one variable. Times are those of `time.perf_counter`.

A call of the engine serves many requests, and a long text needs thousands of calls. So neither a call nor a step is a
span: each request has one for the way of each of its readings through the engine, with how many calls those were and
how large the batches. Spans of calls, linked to all that they served, would be more than the requests' own, and of a
trace that nobody looks at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

Value = str | int | float


class Trace(ABC):
    """A span that is under way."""

    trace_id: str
    span_id: str
    """Both in hexadecimal, as logs have them."""
    is_recorded: bool
    """Whether the sampler chose it; else it has ids and nothing more."""
    status: int | None = None
    """The HTTP status of its answer, once that is known."""

    @abstractmethod
    def record(
        self, name: str, began: float, ended: float, attributes: dict[str, Value], *, failed: bool = False
    ) -> None:
        """Note a part that is over."""

    @abstractmethod
    def begin(self, name: str) -> Trace:
        """A part that begins, with parts of its own."""

    @abstractmethod
    def end(self) -> None:
        """It is over."""


TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the running task."""


def recorded_trace() -> Trace | None:
    """The running task's trace, if there is one and it is recorded."""
    trace = TRACE.get()
    return trace if trace is not None and trace.is_recorded else None


@contextmanager
def part(name: str) -> Iterator[None]:
    """Make a part of the trace of what happens in the block, where there is a trace."""
    trace = recorded_trace()
    if trace is None:
        yield
        return
    inner = trace.begin(name)
    token = TRACE.set(inner)
    try:
        yield
    finally:
        TRACE.reset(token)
        inner.end()


def set_status(status: int) -> None:
    """Say what is answered, where that is no status of HTTP's own."""
    if (trace := TRACE.get()) is not None:
        trace.status = status


class Passage:
    """A reading's way through the queue and the engine."""

    __slots__ = ("_arrived", "_calls", "_first", "_last", "_rows", "_seconds", "_trace")

    def __init__(self, trace: Trace, arrived: float) -> None:
        self._trace = trace
        self._arrived = arrived
        self._first = self._last = 0.0
        self._calls = self._rows = 0
        self._seconds = 0.0

    def called(self, began: float, ended: float, rows: int) -> None:
        """Note a call of the engine that it had a part in, with so many readings."""
        if not self._calls:
            self._first = began
        self._last = ended
        self._calls += 1
        self._seconds += ended - began
        self._rows = max(self._rows, rows)

    def end(self, model: str, tokens: int, *, failed: bool) -> None:
        """Record the wait, and what the engine did with it unless it was given up before."""
        if not self._calls:
            self._trace.record("queue", self._arrived, perf_counter(), {"pru.model": model}, failed=failed)
            return
        self._trace.record("queue", self._arrived, self._first, {"pru.model": model})
        attributes: dict[str, Value] = {
            "pru.model": model,
            "pru.tokens": tokens,
            "pru.engine.calls": self._calls,
            "pru.engine.seconds": self._seconds,
            "pru.batch.rows": self._rows,
        }
        self._trace.record("engine", self._first, self._last, attributes, failed=failed)
