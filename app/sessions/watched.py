"""A session store that is watched.

Boundary: passes every operation on to another store, observes how long it took, for a trace as well, and logs why it
failed: a client is told what is wrong with the store, but neither where that is nor how to mend it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from app.errors import StoreError
from app.metrics import Metrics
from app.sessions.store import SessionRecord, SessionStore, StoredAnswer
from app.tracing.current import recorded_trace

T = TypeVar("T")


class WatchedStore:
    """`store`, its operations in `metrics` and its failures in the log."""

    def __init__(self, store: SessionStore, metrics: Metrics, logger: FilteringBoundLogger) -> None:
        self._store = store
        self._metrics = metrics
        self._logger = logger

    async def open(self) -> list[str]:
        """As the store does."""
        return await self._watched("open", self._store.open())

    async def close(self) -> None:
        """As the store does."""
        await self._store.close()

    async def create(self, record: SessionRecord, answer: StoredAnswer | None = None) -> None:
        """As the store does."""
        await self._watched("create", self._store.create(record, answer))

    async def load(self, session_id: str) -> SessionRecord | None:
        """As the store does."""
        return await self._watched("load", self._store.load(session_id))

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        """As the store does."""
        return await self._watched("replace", self._store.replace(record, answer))

    async def delete(self, session_id: str) -> bool:
        """As the store does."""
        return await self._watched("delete", self._store.delete(session_id))

    async def answer(self, key: str) -> StoredAnswer | None:
        """As the store does."""
        return await self._watched("answer", self._store.answer(key))

    async def purge(self) -> int:
        """As the store does."""
        return await self._watched("purge", self._store.purge())

    async def count(self) -> int:
        """As the store does."""
        return await self._watched("count", self._store.count())

    async def holds(self, bundle: str) -> bool:
        """As the store does."""
        return await self._watched("holds", self._store.holds(bundle))

    async def _watched(self, operation: str, work: Awaitable[T]) -> T:
        began, failed = perf_counter(), False
        try:
            return await work
        except StoreError as error:
            failed = True
            self._logger.error("the session store failed", operation=operation, reason=error.details)
            raise
        finally:
            ended = perf_counter()
            self._metrics.stored(operation, ended - began, failed=failed)
            if (trace := recorded_trace()) is not None:
                trace.record(f"store {operation}", began, ended, {}, failed=failed)
