"""The engine's thread: everything that waits is advanced together, a few steps at a time.

Boundary: packed states and ids in, states, scores and log-probabilities out, awaited. Knows nothing of text, of HTTP or
of where states are kept. How many requests may wait is `app.admission`.

The thread takes from the queue the readings that can go on by the same number of steps, advances them in one call of
the engine, puts back those that are not finished, and looks again: what has arrived meanwhile joins at the next step.
Urgent readings go first; patient ones get one call in `TURNS` while urgent ones wait. A call is to take
`CHUNK_SECONDS`, so a long text never holds up a word for long, and longer only where there are no words to hold up: how
many rows fit is learnt from how long calls take.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import perf_counter, thread_time
from typing import TYPE_CHECKING

import numpy as np

from app.metrics import ModelMetrics
from app.pace import Pace
from app.reading import Reading, Result, advance
from app.ticket import Outcome, Ticket, tell, trace_call
from model.errors import EngineError, EngineMemoryError

if TYPE_CHECKING:
    from app.engines.base import Engine

CHUNK_SECONDS = 0.004
"""What a call of the engine should take, heads included: a little less than the 5 ms that it may."""
ALONE_SECONDS = 0.03
"""The same while nothing urgent has come for `QUIET_SECONDS`: longer calls do far more in their time."""
QUIET_SECONDS = 1.0
TURNS = 4
CROWD = 8
"""Requests at once from which a call waits for others to join it, until three quarters of them have come."""
GATHER_SECONDS = (0.001, 0.012)
"""How long it waits for them at least and at most: longer after somebody came, shorter after nobody did."""
IN_VAIN = 16
"""Calls that wait for nobody after one waited the least in vain: who is served may wait for something else."""


class Scheduler:
    """Runs one engine on a thread of its own. Should the thread die, it calls `on_death` as the last thing it does."""

    def __init__(
        self,
        build: Callable[[], Engine],
        metrics: ModelMetrics,
        on_death: Callable[[Exception], None] = lambda _: None,
        crowd: Callable[[], int] = lambda: 0,
        model: str = "",
    ) -> None:
        """`crowd` says how many requests are being served: some of them may be about to ask for a reading.

        `model` is the name of what the engine runs, for traces.
        """
        self._build = build
        self.metrics = metrics
        self._on_death = on_death
        self._crowd = crowd
        self._model = model
        self._wake = threading.Condition()
        # Shared under `_wake`; all below belongs to the thread.
        self._arrived: deque[Ticket] = deque()
        self._enough = 1
        self._closing = False
        self._dead = False
        self._urgent: deque[Ticket] = deque()
        self._patient: deque[Ticket] = deque()
        self._batch: list[Ticket] = []
        """What is in the call that is being made, and in no queue."""
        self._turn = 0
        self._engine: Engine
        self._hurried, self._alone = Pace(CHUNK_SECONDS), Pace(ALONE_SECONDS)
        self._last_urgent = 0.0
        self._patience = GATHER_SECONDS[0]
        self._unwaited = 0
        self._thread: threading.Thread | None = None

    async def start(self) -> Engine:
        """Build the engine on its thread and run every part of it, so that the first request waits for nothing."""
        loop = asyncio.get_running_loop()
        built: asyncio.Future[Engine] = loop.create_future()

        def report(tell: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(lambda: None if built.done() else tell())

        def run() -> None:
            try:
                self._engine = self._build()
                self._warm()
            except Exception as error:
                failure = error
                report(lambda: built.set_exception(failure))
                return
            report(lambda: built.set_result(self._engine))
            self._run()

        self._thread = threading.Thread(target=run, name="engine", daemon=True)
        self._thread.start()
        return await built

    def close(self) -> None:
        """Finish what waits, and end the thread. What is asked later is an error."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    async def read(self, reading: Reading) -> Result:
        """Read one sequence. Cancelled, it is dropped before its next step."""
        return (await self.read_all([reading]))[0]

    async def read_all(self, readings: Sequence[Reading]) -> list[Result]:
        """Read sequences side by side; raise the first error, the others dropped."""
        loop = asyncio.get_running_loop()
        tickets = [Ticket(reading, loop) for reading in readings]
        with self._wake:
            if self._dead or self._closing:
                raise EngineError("the engine has stopped")
            self._arrived.extend(tickets)
            # The thread is not woken for less than it waits for: it would have to ask this one for the interpreter.
            if len(self._arrived) >= self._enough:
                self._wake.notify()
        try:
            return [await ticket.future for ticket in tickets]
        finally:
            for ticket in tickets:
                ticket.dropped = True
                ticket.future.cancel()
                if ticket.passage is not None:
                    ticket.passage.end(self._model, ticket.reading.done, failed=ticket.has_failed)

    def _warm(self) -> None:
        """Run every graph, and learn how long it takes."""
        state = np.zeros(self._engine.state_size, np.float32)
        for length in (0, *self._engine.step_lengths):
            ids = np.zeros(length, np.int32)
            seconds = []
            for _ in range(3):
                began = thread_time()
                advance(self._engine, [Reading(state, ids, ids, likely=True)], length)
                seconds.append(thread_time() - began)
            for pace in (self._hurried, self._alone):
                pace.begin(length, min(seconds))

    def _run(self) -> None:
        """Call after call, until closed."""
        try:
            while self._collect():
                self._call()
        except Exception as error:
            with self._wake:
                self._dead = True
                waiting = [*self._batch, *self._urgent, *self._patient, *self._arrived]
            self._hand_out((ticket, EngineError("the engine has stopped")) for ticket in waiting)
            self._on_death(error)

    def _collect(self) -> bool:
        """Sort what has arrived; wait while there is nothing to do. False when it is time to end."""
        with self._wake:
            while not (self._arrived or self._urgent or self._patient):
                if self._closing:
                    return False
                self._wake.wait()
            self._let_others_arrive()
            arrived, self._arrived = self._arrived, deque()
        for ticket in arrived:
            (self._urgent if ticket.reading.urgent else self._patient).append(ticket)
        return True

    def _let_others_arrive(self) -> None:
        """Wait a moment where many requests are on their way and few have come: one call for all costs far less."""
        crowd, came = self._crowd(), len(self._arrived)
        self._enough = crowd * 3 // 4 - len(self._urgent) - len(self._patient)
        if crowd >= CROWD and came < self._enough:
            if self._unwaited:
                self._unwaited -= 1
            else:
                self._wake.wait_for(lambda: self._closing or len(self._arrived) >= self._enough, self._patience)
                self._learn_patience(somebody_came=len(self._arrived) > came)
        self._enough = 1

    def _learn_patience(self, somebody_came: bool) -> None:
        shortest, longest = GATHER_SECONDS
        if not somebody_came and self._patience == shortest:
            self._unwaited = IN_VAIN
        self._patience = min(longest, max(shortest, self._patience * (2.0 if somebody_came else 0.5)))

    def _call(self) -> None:
        """Advance one batch by one call of the engine, and hand out what is finished."""
        self._turn = (self._turn + 1) % TURNS
        began = perf_counter()
        if self._urgent:
            self._last_urgent = began
        queue = self._urgent if self._urgent and (self._turn or not self._patient) else self._patient
        pace = self._alone if began - self._last_urgent > QUIET_SECONDS else self._hurried
        batch, length = self._next_batch(queue, pace)
        if not batch:
            return
        self._batch = batch
        outcomes: list[Outcome] = []
        # Patient readings make others wait for as long as a call lasts. Of urgent ones, fewer would not shorten the
        # thread's wait for the interpreter, so only its own work counts.
        clock = thread_time if queue is self._urgent else perf_counter
        work_began = clock()
        try:
            results = advance(self._engine, [ticket.reading for ticket in batch], length)
        except EngineMemoryError as error:
            # No reading has moved. Half of them may fit; one alone that does not is lost.
            pace.retreat(length, len(batch))
            if len(batch) > 1:
                queue.extendleft(reversed(batch))
            else:
                outcomes = [(batch[0], error)]
        except Exception as error:
            # Whatever it is, it takes the readings in this call along, and no others.
            outcomes = [(ticket, error) for ticket in batch]
            trace_call(batch, began)
        else:
            self._note(batch, length, began)
            pace.learn(length, len(batch), clock() - work_began)
            for ticket, result in zip(batch, results, strict=True):
                if result is None:
                    queue.append(ticket)
                else:
                    outcomes.append((ticket, result))
        self._hand_out(outcomes)
        self._batch = []

    def _note(self, batch: Sequence[Ticket], length: int, began: float) -> None:
        """Count a call that has just been made."""
        metrics = self.metrics
        metrics.engine_seconds.observe(perf_counter() - began)
        metrics.batch.observe(len(batch))
        metrics.tokens_read.inc(len(batch) * length)
        trace_call(batch, began)
        for ticket in batch:
            if ticket.reading.done == length:
                metrics.queue_seconds.observe(began - ticket.arrived)

    def _next_batch(self, queue: deque[Ticket], pace: Pace) -> tuple[list[Ticket], int]:
        """Take a batch off a queue, the oldest reading first, and the steps that all of it can go (0: none is left)."""
        waiting = [ticket for ticket in queue if not ticket.dropped]
        self.metrics.queued.observe(len(waiting))
        self.metrics.dropped.inc(len(queue) - len(waiting))
        batch: list[Ticket] = []
        stays: list[Ticket] = []
        length = pace.length([ticket.reading.left for ticket in waiting]) if waiting else 0
        for ticket in waiting:
            left = ticket.reading.left
            goes = left >= length if length else left == 0
            (batch if goes and len(batch) < int(pace.rows[length]) else stays).append(ticket)
        queue.clear()
        queue.extend(stays)
        return batch, length

    def _hand_out(self, outcomes: Iterable[Outcome]) -> None:
        """Tell whoever waits, each event loop once."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for ticket, outcome in outcomes:
            by_loop.setdefault(ticket.loop, []).append((ticket, outcome))
        for loop, told in by_loop.items():
            with suppress(RuntimeError):  # A loop that is closed has nobody left who waits.
                loop.call_soon_threadsafe(tell, told)
