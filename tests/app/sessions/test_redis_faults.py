"""What the Redis store does where Redis fails: one line that says so, nothing lost or made twice, then on again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest

from app.errors import AnswerExistsError, StoreError
from app.sessions.redis import RedisStore
from tests.app.sessions.proxy import Proxy, proxy_to
from tests.app.sessions.records import START, TTL, Clock, answer, following, record, redis_store
from tests.redis_server import DURABLE, RedisServer, redis_server

pytestmark = pytest.mark.anyio

SESSIONS = [record(f"s{n}") for n in range(8)]
TIMEOUT = 1.0


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A Redis of the test's own, which loses nothing."""
    with redis_server(*DURABLE) as server:
        yield server


async def filled(store: RedisStore) -> RedisStore:
    for kept in SESSIONS:
        await store.create(kept)
    return store


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


async def refused(operation: Awaitable[object], *words: str) -> str:
    """An operation fails with one line that names the Redis and says these words; the line."""
    with pytest.raises(StoreError) as raised:
        await operation
    message = str(raised.value)
    assert message.startswith("Redis at ")
    assert all(word in message for word in words), message
    assert "\n" not in message
    return message


async def assert_it_works_again(store: RedisStore) -> None:
    assert [await store.load(kept.session_id) for kept in SESSIONS] == SESSIONS
    assert await store.count() == len(SESSIONS)
    await store.create(record("new"), answer("new"))
    assert await store.replace(record("new", 2))
    assert await store.load("new") == record("new", 2)
    assert await store.answer("new") == answer("new")


def scripts_run(redis: RedisServer) -> int:
    """How many scripts Redis has run since its statistics were reset."""
    return int(redis.ask("INFO", "commandstats").get("cmdstat_eval", {"calls": 0})["calls"])


async def test_a_change_whose_reply_is_lost_is_made_once_and_found_by_the_same_request_sent_again(
    remote: RedisStore, proxy: Proxy, redis: RedisServer
) -> None:
    redis.ask("CONFIG", "RESETSTAT")
    proxy.cut = True
    await refused(remote.replace(record("s0", 2), answer()), "cannot be reached", "may have been made")
    assert scripts_run(redis) == 1
    assert await remote.load("s0") == record("s0", 2)
    with pytest.raises(AnswerExistsError) as raised:
        await remote.replace(record("s0", 3), answer(body=b"computed anew"))
    assert raised.value.answer == answer()
    assert await remote.load("s0") == record("s0", 2)
    assert await remote.replace(record("s0", 3))


async def test_of_changes_sent_together_whose_replies_are_lost_none_is_acknowledged_or_made_twice(
    remote: RedisStore, proxy: Proxy, redis: RedisServer
) -> None:
    redis.ask("CONFIG", "RESETSTAT")
    proxy.cut = True
    changes = [remote.replace(following(kept), answer(kept.session_id)) for kept in SESSIONS]
    done = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(result) for result in done] == len(SESSIONS) * [StoreError]
    assert scripts_run(redis) == len(SESSIONS)
    assert [await remote.load(kept.session_id) for kept in SESSIONS] == [following(kept) for kept in SESSIONS]
    for kept in SESSIONS:
        with pytest.raises(AnswerExistsError):
            await remote.replace(following(following(kept)), answer(kept.session_id))


@pytest.mark.parametrize("change", ["create", "delete"])
async def test_the_lost_reply_to_any_change_is_an_error_that_says_so(
    remote: RedisStore, proxy: Proxy, change: str
) -> None:
    proxy.cut = True
    asked = remote.create(record("new")) if change == "create" else remote.delete("s0")
    await refused(asked, "may have been made", "Idempotency-Key")
    assert await remote.load("new") == (record("new") if change == "create" else None)
    assert await remote.load("s0") == (SESSIONS[0] if change == "create" else None)


async def test_a_connection_that_was_closed_while_nobody_used_it_is_not_noticed(
    store: RedisStore, redis: RedisServer
) -> None:
    for _ in range(3):
        redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.02)
        assert await store.replace(record("s0", 2))
        await store.delete("s0")
        await store.create(record("s0"))
    await assert_it_works_again(store)


async def test_a_redis_that_hangs_is_an_error_to_all_who_wait_at_once_and_works_when_it_goes_on(
    store: RedisStore, redis: RedisServer
) -> None:
    redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        waiting = [store.replace(record(f"s{n % 8}", 2), answer(f"{n}")) for n in range(400)]
        done = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        redis.process.send_signal(signal.SIGCONT)
    assert [type(result) for result in done] == 400 * [StoreError]
    assert "did not answer in time" in str(done[0])
    assert ["may have been made" in str(result) for result in done] == 64 * [True] + 336 * [False]
    # Not a timeout for each of the seven groups that they are.
    assert time.monotonic() - began < 4 * TIMEOUT
    # What was sent before may still be done; it is done once, and seen.
    for n, kept in enumerate(SESSIONS):
        found = await store.load(kept.session_id)
        assert found in (kept, following(kept))
        assert found is not None
        assert await store.replace(following(found), answer(f"later{n}"))


async def test_a_redis_that_is_killed_has_all_that_was_acknowledged_when_it_is_back(
    own: RedisServer, clock: Clock
) -> None:
    store = await filled(await redis_store(own, clock))
    own.kill()
    await asyncio.sleep(0.02)
    message = await refused(store.replace(record("s0", 2)), "cannot be reached")
    assert "may have been made" not in message, "nothing was sent"
    await refused(store.load("s0"), "cannot be reached")
    own.start()
    await assert_it_works_again(store)
    await store.close()


async def test_a_redis_that_is_not_there_opens_no_store_until_it_is(own: RedisServer, clock: Clock) -> None:
    own.kill()
    store = RedisStore(own.url, now=clock)
    await refused(store.open(), str(own.socket), "cannot be reached", "see that it runs")
    await refused(store.load("a"), "closed", "could not reach it yet")
    own.start()
    await store.open()
    await (await filled(store)).close()


async def test_a_full_redis_loses_nothing_and_memory_is_used_when_there_is_some(
    store: RedisStore, redis: RedisServer, clock: Clock
) -> None:
    redis.configure(maxmemory="1")
    try:
        await refused(store.create(record("new"), answer("new")), "no memory left", "maxmemory")
        await refused(store.replace(record("s1", 2), answer("new")), "no memory left")
        await refused(store.touch("s1", START + 9 * TTL), "no memory left")
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
            message = await refused(
                RedisStore(f"{scheme}://{login}{place}", now=clock).open(), f"{place} refuses the user or the password"
            )
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
    await refused(RedisStore(address, now=clock).open(), "lacks a right")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"-LOADING Redis is loading the dataset in memory", ("still loading", "try again in a moment")),
        (b"-CLUSTERDOWN Hash slot not served", ("Redis Cluster", "name a single Redis")),
        (b"-CROSSSLOT Keys in request don't hash to the same slot", ("Redis Cluster", "name a single Redis")),
        (b"-MOVED 3999 127.0.0.1:6381", ("Redis Cluster", "name a single Redis")),
        (b"-NOAUTH Authentication required.", ("the password",)),
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


@pytest.mark.parametrize(
    "commands",
    [["SET", "theirs"], ["HSET", "name", "theirs"], ["HSET", "expires_at", "tomorrow", "version", "1"]],
    ids=["a string", "a hash", "a hash with one of our names"],
)
async def test_what_others_keep_under_a_sessions_key_is_an_error_and_left_as_it_is(
    store: RedisStore, redis: RedisServer, commands: list[str]
) -> None:
    redis.ask(commands[0], "pru:1:session:a", *commands[1:])
    before = redis.ask("DUMP", "pru:1:session:a")
    await refused(store.load("a"), "another program or version", "another database")
    await refused(store.replace(record(version=2), answer()), "another program or version")
    await refused(store.touch("a", 1e12), "another program or version")
    await refused(store.delete("a"), "another program or version")
    await refused(store.create(record(), answer()), "id already")
    assert redis.ask("DUMP", "pru:1:session:a") == before
    assert await store.answer("key") is None
    await assert_it_works_again(store)


async def test_a_session_with_values_more_or_fewer_or_other_than_ours_is_not_read(
    store: RedisStore, redis: RedisServer
) -> None:
    redis.ask("HSET", "pru:1:session:s0", "colour", "blue")
    redis.ask("HDEL", "pru:1:session:s1", "tail")
    redis.ask("HSET", "pru:1:session:s2", "position", "far")
    redis.ask("HSET", "pru:1:session:s3", "bundle", b"\xff")
    for kept in SESSIONS[:4]:
        await refused(store.load(kept.session_id), "another program or version")
    assert await store.load("s4") == SESSIONS[4]


@pytest.mark.parametrize("commands", [["SET", "theirs"], ["HSET", "name", "theirs"]], ids=["string", "hash"])
async def test_what_others_keep_under_an_answers_key_is_an_error_and_nothing_is_done(
    store: RedisStore, redis: RedisServer, commands: list[str]
) -> None:
    redis.ask(commands[0], "pru:1:answer:key", *commands[1:])
    for asked in (store.answer("key"), store.replace(record("s0", 2), answer()), store.create(record(), answer())):
        await refused(asked, "another program or version")
    assert await store.load("a") is None
    await assert_it_works_again(store)


@pytest.mark.parametrize("kind", ["sessions", "answers"])
async def test_what_others_keep_in_the_place_of_a_sorted_set_opens_no_store_and_fails_changes_whole(
    store: RedisStore, redis: RedisServer, clock: Clock, kind: str
) -> None:
    redis.ask("RENAME" if kind == "sessions" else "SET", f"pru:1:{kind}", "aside")
    redis.ask("SET", f"pru:1:{kind}", "theirs")
    await refused(redis_store(redis, clock), "another program or version")
    await refused(store.create(record("new"), answer("new")), "another program or version")
    await refused(store.replace(record("s0", 2), answer("new")), "another program or version")
    await refused(store.purge(), "another program or version")
    redis.ask("DEL", f"pru:1:{kind}")
    if kind == "sessions":
        redis.ask("RENAME", "aside", "pru:1:sessions")
    await assert_it_works_again(store)


async def test_a_state_or_an_answer_of_which_one_bit_fell_over_is_not_served(
    store: RedisStore, redis: RedisServer
) -> None:
    assert await store.replace(record("s3", 2), answer())
    for key, name in (("session:s3", "state"), ("answer:key", "body")):
        value = redis.ask("HGET", f"pru:1:{key}", name)
        redis.ask("HSET", f"pru:1:{key}", name, bytes([value[0] ^ 1]) + value[1:])
    await refused(store.load("s3"), "damaged")
    await refused(store.answer("key"), "damaged")
    await refused(store.replace(record("s4", 2), answer()), "damaged")
    assert await store.load("s4") == SESSIONS[4]
    assert await store.delete("s3")
    assert await store.load("s3") is None


async def test_scripts_that_redis_forgot_are_run_all_the_same(store: RedisStore, redis: RedisServer) -> None:
    redis.ask("SCRIPT", "FLUSH")
    await assert_it_works_again(store)
