"""Redis servers that fail, and stores that hold a few sessions in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from app.sessions.redis import RedisStore
from benchmarks.redis_server import DURABLE, RedisServer
from tests.app.sessions.proxy import Proxy, proxy_to
from tests.app.sessions.records import Clock, redis_store
from tests.app.sessions.redis_faults.few import TIMEOUT, filled
from tests.redis_server import redis_server


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A Redis of the test's own, which loses nothing."""
    with redis_server(*DURABLE) as server:
        yield server


@pytest.fixture
async def store(redis: RedisServer, clock: Clock) -> AsyncIterator[RedisStore]:
    """A store that holds a few sessions and waits for Redis only shortly."""
    store = await filled(await redis_store(redis, clock, TIMEOUT))
    yield store
    await store.close()


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncIterator[Proxy]:
    async with proxy_to(redis.socket) as proxy:
        yield proxy


@pytest.fixture
async def remote(proxy: Proxy, clock: Clock) -> AsyncIterator[RedisStore]:
    """A store that holds a few sessions, behind the proxy."""
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=TIMEOUT, now=clock)
    await store.open()
    yield await filled(store)
    await store.close()
