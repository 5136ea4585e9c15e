"""What the Redis store does where others wrote, or a bit fell over: it is an error, and left as it is."""

from __future__ import annotations

import pytest

from app.sessions.redis import RedisStore
from benchmarks.redis_server import RedisServer
from tests.app.sessions.records import Clock, answer, record, redis_store
from tests.app.sessions.redis_faults.few import SESSIONS, assert_it_works_again, refused

pytestmark = pytest.mark.anyio


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
