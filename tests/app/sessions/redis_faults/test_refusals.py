"""What the Redis store does where Redis refuses: one line that says why, nothing has changed, then on again."""

from __future__ import annotations

import asyncio

import pytest

from app.sessions.redis import RedisStore
from benchmarks.redis_server import RedisServer
from tests.app.sessions.proxy import Proxy, proxy_to
from tests.app.sessions.records import START, TTL, Clock, answer, opened, record, redis_store
from tests.app.sessions.redis_faults.few import SESSIONS, assert_it_works_again, filled, refused

pytestmark = pytest.mark.anyio


async def test_a_full_redis_loses_nothing_and_memory_is_used_when_there_is_some(
    store: RedisStore, redis: RedisServer, clock: Clock
) -> None:
    redis.configure(maxmemory="1")
    try:
        await refused(store.create(record("new"), answer("new")), "is full", "maxmemory")
        await refused(store.replace(record("s1", 2), answer("new")), "is full")
        assert [await store.load(kept.session_id) for kept in SESSIONS] == SESSIONS
        assert (await store.answer("new"), await store.load("new"), await store.count()) == (None, None, 8)
        assert await store.delete("s0"), "a session that is removed makes room for another"
        clock.time = START + TTL
        assert await store.purge() == 7
        clock.time = START
    finally:
        redis.configure(maxmemory="0")
    await assert_it_works_again(await filled(store))


async def test_a_replica_reads_but_does_not_write_and_opens_no_store(own: RedisServer, clock: Clock) -> None:
    store = await filled(await redis_store(own, clock))
    own.ask("REPLICAOF", "127.0.0.1", "1")
    await refused(store.create(record("new"), answer("new")), "replica", "primary")
    await refused(store.replace(record("s0", 2)), "replica")
    await refused(redis_store(own, clock), "replica")
    assert [await store.load(kept.session_id) for kept in SESSIONS] == SESSIONS
    own.ask("REPLICAOF", "NO", "ONE")
    await assert_it_works_again(store)
    await store.close()


@pytest.mark.parametrize("over", ["unix", "tcp"])
async def test_a_password_that_is_missing_or_wrong_is_said_and_not_told(
    own: RedisServer, clock: Clock, over: str
) -> None:
    store = await filled(await redis_store(own, clock))
    own.configure(requirepass="open sesame")
    async with proxy_to(own.socket) as proxy:
        place = str(own.socket) if over == "unix" else f"127.0.0.1:{proxy.port}"
        scheme = "unix" if over == "unix" else "redis"
        for login in ("", ":sesame@", "other:open%20sesame@"):
            guest = RedisStore(f"{scheme}://{login}{place}", now=clock)
            message = await refused(opened(guest), f"{place} refuses the service's user or password")
            assert "sesame" not in message
        allowed = RedisStore(f"{scheme}://:open%20sesame@{place}", now=clock)
        await allowed.open()
        await assert_it_works_again(allowed)
        await allowed.close()
    await store.close()


async def test_a_password_that_is_asked_for_from_now_on_is_noticed_and_mended_without_a_restart(
    own: RedisServer, clock: Clock
) -> None:
    store = await filled(await redis_store(own, clock))
    own.configure(requirepass="sesame")
    own.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.02)
    await refused(store.load("s0"), "password")
    await refused(store.load("s0"), "password")
    own.configure(requirepass="")
    await assert_it_works_again(store)
    await store.close()


async def test_a_user_who_lacks_a_right_is_told_so_and_needs_none_to_read_the_configuration(
    own: RedisServer, clock: Clock
) -> None:
    own.ask("ACL", "SETUSER", "pru", "on", ">p", "~pru:1:*", "+@all", "-config")
    address = f"unix://pru:p@{own.socket}"
    store = RedisStore(address, now=clock)
    assert await store.open() == []
    await assert_it_works_again(await filled(store))
    own.ask("ACL", "SETUSER", "pru", "resetkeys", "~other:*")
    await refused(store.load("s0"), "lacks a right", "grant")
    await refused(store.replace(record("s0", 2)), "lacks a right")
    await store.close()
    await refused(opened(RedisStore(address, now=clock)), "lacks a right")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"-LOADING Redis is loading the dataset in memory", ("still loading", "try again later")),
        (b"-CLUSTERDOWN Hash slot not served", ("Redis Cluster", "name a single Redis")),
        (b"-CROSSSLOT Keys in request don't hash to the same slot", ("Redis Cluster", "name a single Redis")),
        (b"-MOVED 3999 127.0.0.1:6381", ("Redis Cluster", "name a single Redis")),
        (b"-NOAUTH Authentication required.", ("user or password",)),
        (b"-MISCONF Errors writing to the AOF file: No space left on device", ("No space left on device", "see to it")),
        (b"-BUSY Redis is busy running a script.", ("busy running a script", "try again")),
        (b"-ERR max number of clients reached", ("cannot be reached", "max number of clients")),
        (b"HTTP/1.1 400 Bad Request", ("does not speak as Redis does", "address")),
        (b":\xff\xfe", ("does not speak as Redis does", "address")),
    ],
)
async def test_what_redis_says_in_place_of_a_reply_is_explained_and_nothing_has_changed(
    remote: RedisStore, proxy: Proxy, said: bytes, words: tuple[str, ...]
) -> None:
    proxy.reply = said + b"\r\n"
    await refused(remote.replace(record("s0", 2), answer()), *words)
    # The same while it connects.
    await refused(remote.load("s0"), *words)
    proxy.reply = None
    await assert_it_works_again(remote)
