"""A session store that is timed.

Boundary: passes every operation on to another store, and observes how long it took, whether it succeeded or not.
"""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from app.metrics import Metrics
from app.sessions.store import SessionRecord, SessionStore, StoredAnswer

T = TypeVar("T")


class TimedStore:
    """`store`, its operations in `metrics`."""

    def __init__(self, store: SessionStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def open(self) -> list[str]:
        """As the store does."""
        return await self._store.open()

    async def close(self) -> None:
        """As the store does."""
        await self._store.close()

    async def create(self, record: SessionRecord, answer: StoredAnswer | None = None) -> None:
        """As the store does."""
        await self._timed("create", self._store.create(record, answer))

    async def load(self, session_id: str) -> SessionRecord | None:
        """As the store does."""
        return await self._timed("load", self._store.load(session_id))

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        """As the store does."""
        return await self._timed("replace", self._store.replace(record, answer))

    async def touch(self, session_id: str, expires_at: float) -> None:
        """As the store does."""
        await self._timed("touch", self._store.touch(session_id, expires_at))

    async def delete(self, session_id: str) -> bool:
        """As the store does."""
        return await self._timed("delete", self._store.delete(session_id))

    async def answer(self, key: str) -> StoredAnswer | None:
        """As the store does."""
        return await self._timed("answer", self._store.answer(key))

    async def purge(self) -> int:
        """As the store does."""
        return await self._timed("purge", self._store.purge())

    async def count(self) -> int:
        """As the store does."""
        return await self._timed("count", self._store.count())

    async def _timed(self, operation: str, work: Awaitable[T]) -> T:
        began = perf_counter()
        try:
            return await work
        finally:
            self._metrics.stored(operation, perf_counter() - began)
