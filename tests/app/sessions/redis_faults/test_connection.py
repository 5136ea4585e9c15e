"""What the Redis store does where Redis dies, hangs or does not reply: nothing is lost or made twice, then on again."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from app.errors import AnswerExistsError, StoreError
from app.sessions.redis import RedisStore
from benchmarks.redis_server import RedisServer
from tests.app.sessions.proxy import Proxy
from tests.app.sessions.records import Clock, answer, following, record, redis_store
from tests.app.sessions.redis_faults.few import SESSIONS, TIMEOUT, assert_it_works_again, filled, refused

pytestmark = pytest.mark.anyio


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
    await refused(store.load("a"), "cannot be reached")
    own.start()
    await store.open()
    await (await filled(store)).close()


async def test_scripts_that_redis_forgot_are_run_all_the_same(store: RedisStore, redis: RedisServer) -> None:
    redis.ask("SCRIPT", "FLUSH")
    await assert_it_works_again(store)
