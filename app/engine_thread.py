"""The one thread that runs the engine, one job after another.

Boundary: ids in, arrays out, awaited; how many may wait, and how long, is `app.admission`. The three methods `top_k`,
`log_probabilities` and `score` are all that the service asks of an engine, so a scheduler that batches steps can take
this class's place. Requests are computed in the order they came. One that is cancelled while it waits is never
computed; one that runs stops at its next chunk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from app import scoring
from app.scoring import Floats, Ids, Scores

if TYPE_CHECKING:
    from app.engines.base import Engine

T = TypeVar("T")
Check = Callable[[], None]


class _StoppedError(Exception):
    """Raised inside a job whose request is gone; nobody awaits it any more."""


class EngineThread:
    """Runs jobs on the engine one after another."""

    def __init__(self, build: Callable[[], Engine]) -> None:
        self._build = build
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._engine: Engine

    async def start(self) -> Engine:
        """Build the engine on its thread and run every method once, so that the first request waits for nothing."""
        self._engine = await asyncio.get_running_loop().run_in_executor(self._executor, self._build_and_warm)
        return self._engine

    def close(self) -> None:
        """Let the job that runs finish, and end the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def top_k(self, ids: Ids, k: int) -> tuple[Ids, Floats]:
        """The `k` most likely tokens after `ids` [n >= 1] and their log-probabilities, best first."""

        def job(check: Check) -> tuple[Ids, Floats]:
            hidden, _ = scoring.read(self._engine, ids, check)
            best, values = self._engine.top_k(hidden, k)
            return best[0], values[0]

        return await self._run(job)

    async def log_probabilities(self, ids: Ids) -> Floats:
        """Log-probability of every token of the vocabulary [V] after `ids` [n >= 1]."""

        def job(check: Check) -> Floats:
            hidden, _ = scoring.read(self._engine, ids, check)
            values: Floats = self._engine.log_probabilities(hidden)[0]
            return values

        return await self._run(job)

    async def score(self, context: Ids, sequences: Sequence[Ids]) -> list[Scores]:
        """Score every token of each sequence after `context` [n >= 1]."""
        return await self._run(lambda check: scoring.score(self._engine, context, sequences, check))

    def _build_and_warm(self) -> Engine:
        engine = self._build()
        ids = np.zeros(2, np.int32)
        hidden, _ = scoring.read(engine, ids)
        engine.top_k(hidden, 1)
        scoring.score(engine, ids, [ids, ids])
        return engine

    async def _run(self, job: Callable[[Check], T]) -> T:
        """Queue a job and await it; cancelled, it is left out of the queue or stops at its next chunk."""
        stopped = threading.Event()

        def check() -> None:
            if stopped.is_set():
                raise _StoppedError

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, job, check)
        finally:
            stopped.set()
