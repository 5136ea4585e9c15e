"""Sessions and answers whose bytes tell which they are, and a clock that stands still."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from app.errors import StoreError
from app.sessions.redis import RedisStore
from app.sessions.sqlite import SQLiteStore
from app.sessions.store import SessionRecord, StoredAnswer
from benchmarks.redis_server import RedisServer

Store = TypeVar("Store", SQLiteStore, RedisStore)

START = 1_000_000.0
"""Where the clock stands at first."""
TTL = 60.0


class Clock:
    """Shows `time`, which a test moves, and can hold a store's thread where it asks for it."""

    def __init__(self) -> None:
        self.time = START
        self._open = threading.Event()
        self._open.set()
        self._reached = threading.Event()

    def __call__(self) -> float:
        self._reached.set()
        assert self._open.wait(20)
        return self.time

    @asynccontextmanager
    async def held(self, store: SQLiteStore) -> AsyncIterator[None]:
        """Hold the thread in the middle of an operation until all that the block asks for waits behind it."""
        self._open.clear()
        self._reached.clear()
        operation = asyncio.create_task(store.count())
        assert await asyncio.to_thread(self._reached.wait, 20)
        yield
        await asyncio.sleep(0)
        self._open.set()
        await operation


def record(session_id: str = "a", version: int = 1, floats: int = 8, expires_at: float = START + TTL) -> SessionRecord:
    """A session that has read as many tokens as its version says, the last few since its anchor."""
    position, anchor_position = version, version // 64 * 64
    return SessionRecord(
        session_id=session_id,
        bundle="0" * 64,
        version=version,
        position=position,
        state=state(session_id, position, floats),
        anchor=state(session_id, anchor_position, floats),
        anchor_position=anchor_position,
        tail=np.arange(anchor_position, position, dtype=np.int32).tobytes(),
        ttl=TTL,
        expires_at=expires_at,
    )


def state(session_id: str, position: int, floats: int) -> bytes:
    """A row that no other session has, and none at another position."""
    seed = [position, *session_id.encode()]
    return np.random.default_rng(seed).standard_normal(floats, np.float32).tobytes()


def following(kept: SessionRecord) -> SessionRecord:
    """What `kept` is after one more token."""
    after = record(kept.session_id, kept.version + 1, len(kept.state) // 4)
    return replace(after, expires_at=kept.expires_at)


def answer(key: str = "key", body: bytes = b'{"position": 1}', expires_at: float = START + TTL) -> StoredAnswer:
    return StoredAnswer(key=key, fingerprint="f" * 64, body=body, expires_at=expires_at)


async def sqlite_store(path: Path, clock: Clock, busy_timeout: float = 5.0) -> SQLiteStore:
    """An open store on a file."""
    return await opened(SQLiteStore(path, busy_timeout=busy_timeout, now=clock))


async def redis_store(redis: RedisServer, clock: Clock, timeout: float = 5.0) -> RedisStore:
    """An open store in a Redis."""
    return await opened(RedisStore(redis.url, timeout=timeout, now=clock))


async def opened(store: Store) -> Store:
    """A store, opened, or closed where that fails."""
    try:
        await store.open()
    except StoreError:
        await store.close()
        raise
    return store
