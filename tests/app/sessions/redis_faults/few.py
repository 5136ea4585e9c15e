"""A few sessions that outlive what happens to their Redis."""

from __future__ import annotations

from collections.abc import Awaitable

from app.sessions.redis import RedisStore
from tests.app.sessions import faults
from tests.app.sessions.records import answer, record

SESSIONS = [record(f"s{n}") for n in range(8)]
TIMEOUT = 1.0


async def filled(store: RedisStore) -> RedisStore:
    for kept in SESSIONS:
        await store.create(kept)
    return store


async def refused(operation: Awaitable[object], *words: str) -> str:
    """An operation fails and says these words, with the place of the Redis for the log alone; all that it says."""
    return await faults.refused(operation, "Redis at ", *words)


async def assert_it_works_again(store: RedisStore) -> None:
    assert [await store.load(kept.session_id) for kept in SESSIONS] == SESSIONS
    assert await store.count() == len(SESSIONS)
    await store.create(record("new"), answer("new"))
    assert await store.replace(record("new", 2))
    assert await store.load("new") == record("new", 2)
    assert await store.answer("new") == answer("new")
