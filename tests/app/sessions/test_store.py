"""What every session store promises, whatever keeps the sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from app.errors import AnswerExistsError, StoreError
from app.sessions.store import SessionRecord, SessionStore, StoredAnswer
from tests.app.sessions.records import START, TTL, Clock, answer, following, record, redis_store, sqlite_store

pytestmark = pytest.mark.anyio

Stores = Callable[[], Awaitable[SessionStore]]


OPEN: dict[str, tuple[str, Callable[[Any, Clock], Awaitable[SessionStore]]]] = {
    "sqlite": ("path", sqlite_store),
    "redis": ("redis", redis_store),
}
"""The fixture that says where each kind of store is, and how it is opened there."""


@pytest.fixture(params=OPEN)
async def stores(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Stores]:
    """Opens stores that share their sessions, as those of several servers do."""
    fixture, open_there = OPEN[request.param]
    place = request.getfixturevalue(fixture)
    async with AsyncExitStack() as opened:

        async def another() -> SessionStore:
            store = await open_there(place, clock)
            opened.push_async_callback(store.close)
            return store

        yield another


@pytest.fixture
async def store(stores: Stores) -> SessionStore:
    """One open store."""
    return await stores()


async def keep(store: SessionStore, *records: SessionRecord) -> None:
    await asyncio.gather(*(store.create(each) for each in records))


@pytest.mark.parametrize(
    "kept",
    [
        record(),
        record(version=100, floats=6400),
        replace(record(), state=b"", anchor=b"\0" * 9, tail=b""),
        replace(record(), personal=bytes(range(256)) * 1000),
        replace(record(), session_id="ü'\";--", bundle="", version=2**62, position=2**62, ttl=0.1, expires_at=1e15),
    ],
    ids=["small", "large", "empty", "personal", "odd"],
)
async def test_a_session_comes_back_as_it_was_kept(store: SessionStore, kept: SessionRecord) -> None:
    await store.create(kept)
    assert await store.load(kept.session_id) == kept


async def test_another_server_sees_what_was_kept(stores: Stores) -> None:
    here, there = await stores(), await stores()
    await here.create(record(), answer())
    assert await there.load("a") == record()
    assert await there.answer("key") == answer()
    assert await there.replace(record(version=2))
    assert await here.load("a") == record(version=2)


async def test_what_is_closed_is_there_when_it_is_opened_again(stores: Stores) -> None:
    store = await stores()
    await store.create(record(), answer())
    await store.close()
    again = await stores()
    assert (await again.load("a"), await again.answer("key")) == (record(), answer())


async def test_an_unknown_session_is_none_and_nothing_is_done_to_it(store: SessionStore) -> None:
    assert await store.load("a") is None
    assert await store.answer("key") is None
    assert not await store.replace(record(version=2))
    assert not await store.delete("a")
    assert await store.count() == 0
    assert await store.load("a") is None


async def test_a_second_session_of_one_id_is_refused_with_its_answer(store: SessionStore) -> None:
    await store.create(record())
    with pytest.raises(StoreError, match="id"):
        await store.create(record(version=7), answer())
    assert await store.load("a") == record()
    assert await store.answer("key") is None


async def test_a_session_is_replaced_by_its_next_version_and_by_no_other(store: SessionStore) -> None:
    await keep(store, record("a", 5), record("b", 5))
    for version in (1, 4, 5, 7):
        assert not await store.replace(record("a", version))
    assert await store.load("a") == record("a", 5)
    assert await store.replace(record("a", 6))
    assert await store.load("a") == record("a", 6)
    assert await store.load("b") == record("b", 5)


async def test_one_of_many_changes_to_one_version_is_made(stores: Stores) -> None:
    servers = [await stores(), await stores()]
    await servers[0].create(record())
    changes = [replace(record(version=2), position=n) for n in range(50)]
    done = await asyncio.gather(*(servers[n % 2].replace(change) for n, change in enumerate(changes)))
    assert sum(done) == 1
    assert await servers[0].load("a") == changes[done.index(True)]


async def test_changes_that_load_and_replace_until_they_are_made_are_all_made(stores: Stores) -> None:
    servers = [await stores(), await stores()]
    await servers[0].create(record())

    async def advance(store: SessionStore) -> None:
        while True:
            kept = await store.load("a")
            assert kept is not None
            if await store.replace(following(kept)):
                return

    await asyncio.gather(*(advance(servers[n % 2]) for n in range(20)))
    assert await servers[0].load("a") == record(version=21)


async def test_operations_of_one_store_happen_in_the_order_they_were_asked(store: SessionStore) -> None:
    made, first, replaced, second, deleted, third = await asyncio.gather(
        store.create(record()),
        store.load("a"),
        store.replace(record(version=2)),
        store.load("a"),
        store.delete("a"),
        store.load("a"),
    )
    assert (made, first, replaced, second, deleted, third) == (None, record(), True, record(version=2), True, None)


async def test_a_deleted_session_is_gone_and_others_are_not(store: SessionStore) -> None:
    await keep(store, record("a"), record("b"))
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.load("a") is None
    assert await store.load("b") == record("b")


async def test_a_session_is_gone_from_its_last_second_on(store: SessionStore, clock: Clock) -> None:
    await keep(store, record("a"), record("b", expires_at=START + 2 * TTL))
    clock.time = START + TTL - 0.001
    assert await store.load("a") == record("a")
    assert await store.count() == 2
    clock.time = START + TTL
    assert await store.load("a") is None
    assert not await store.replace(record("a", 2, expires_at=START + 9 * TTL))
    assert not await store.delete("a")
    assert await store.count() == 1
    assert await store.load("b") is not None


async def test_an_answer_is_kept_with_the_change_it_tells_of(store: SessionStore) -> None:
    made, changed = answer("k1", b"made"), answer("k2", bytes(range(256)))
    await store.create(record(), made)
    assert await store.replace(record(version=2), changed)
    assert [await store.answer(key) for key in ("k1", "k2", "k3")] == [made, changed, None]


async def test_no_answer_is_kept_of_a_change_that_was_not_made(store: SessionStore) -> None:
    await store.create(record())
    assert not await store.replace(record(version=3), answer())
    assert await store.answer("key") is None


async def test_a_change_whose_answer_is_kept_already_is_not_made_again(store: SessionStore) -> None:
    await store.create(record(), answer())
    for change in (
        store.create(record("b"), answer(body=b"other")),
        store.replace(record(version=2), answer(body=b"other")),
        store.replace(record(version=9), answer(body=b"other")),
    ):
        with pytest.raises(AnswerExistsError) as raised:
            await change
        assert raised.value.answer == answer()
    assert await store.load("a") == record()
    assert await store.load("b") is None
    assert await store.answer("key") == answer()


async def test_of_one_request_sent_to_two_servers_at_once_one_is_applied(stores: Stores) -> None:
    servers = [await stores(), await stores()]
    sent = [(record(f"s{n}"), answer(body=str(n).encode())) for n in range(20)]
    done = await asyncio.gather(*(servers[n % 2].create(*sent[n]) for n in range(20)), return_exceptions=True)
    [winner] = [n for n, result in enumerate(done) if result is None]
    assert [result.answer for result in done if isinstance(result, AnswerExistsError)] == 19 * [sent[winner][1]]
    assert await servers[0].count() == 1
    assert await servers[0].load(f"s{winner}") == sent[winner][0]


async def test_an_answer_is_gone_from_its_last_second_on_and_gives_way(store: SessionStore, clock: Clock) -> None:
    await store.create(record("a", expires_at=START + 9 * TTL), answer())
    clock.time = START + TTL
    assert await store.answer("key") is None
    later = answer(body=b"later", expires_at=START + 2 * TTL)
    assert await store.replace(record("a", 2, expires_at=START + 9 * TTL), later)
    assert await store.answer("key") == later


async def test_an_answer_outlives_its_session(store: SessionStore) -> None:
    await store.create(record(), answer())
    await store.delete("a")
    assert await store.answer("key") == answer()


async def test_purging_removes_what_is_expired_and_nothing_else(store: SessionStore, clock: Clock) -> None:
    await asyncio.gather(*(store.create(record(f"old{n}"), answer(f"old{n}")) for n in range(250)))
    lasting = [record(f"new{n}", expires_at=START + 2 * TTL) for n in range(3)]
    await keep(store, *lasting)
    await store.create(record("b", expires_at=START + 2 * TTL), answer("new", expires_at=START + 2 * TTL))
    assert await store.purge() == 0
    clock.time = START + TTL
    assert await store.purge() == 250
    assert await store.purge() == 0
    # What is purged does not come back with the time in which it lived.
    clock.time = START
    assert await store.count() == 4
    assert [await store.load(kept.session_id) for kept in lasting] == lasting
    assert await store.load("old0") is None
    assert await store.answer("old0") is None
    assert await store.answer("new") is not None


async def test_ten_thousand_sessions_are_kept_and_counted(store: SessionStore) -> None:
    await keep(store, *(record(f"s{n}") for n in range(10_000)))
    assert await store.count() == 10_000
    assert await store.load("s9999") == record("s9999")


async def test_a_bundle_is_held_while_a_session_that_is_not_expired_stands_on_it(
    store: SessionStore, clock: Clock
) -> None:
    other, third = replace(record("b"), bundle="1" * 64), replace(record("c"), bundle="1" * 64, expires_at=START + 5)
    assert not await store.holds("0" * 64)
    await keep(store, record("a"), other, third)
    assert [await store.holds(bundle * 64) for bundle in "012"] == [True, True, False]
    await store.delete("b")
    clock.time = START + 4.9
    assert await store.holds("1" * 64)
    clock.time = START + 5
    assert [await store.holds(bundle * 64) for bundle in "012"] == [True, False, False]


async def test_the_only_session_of_a_bundle_is_found_among_many(store: SessionStore) -> None:
    await keep(store, *(record(f"{index}", floats=1) for index in range(1000)), replace(record("x"), bundle="1" * 64))
    assert [await store.holds(bundle * 64) for bundle in "12"] == [True, False]


async def test_closing_finishes_what_was_asked_and_refuses_what_is_asked_later(stores: Stores) -> None:
    store = await stores()
    asked = [asyncio.create_task(store.create(record(f"s{n}"))) for n in range(200)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*asked)
    with pytest.raises(StoreError, match="closed"):
        await store.load("s0")
    assert await (await stores()).count() == 200


async def test_a_store_that_was_not_opened_refuses_every_operation(stores: Stores) -> None:
    store = await stores()
    await store.close()
    operations: list[Awaitable[int | bool | SessionRecord | StoredAnswer | None]] = [
        store.create(record()),
        store.load("a"),
        store.replace(record()),
        store.delete("a"),
        store.answer("key"),
        store.purge(),
        store.count(),
        store.holds("0" * 64),
    ]
    for operation in operations:
        with pytest.raises(StoreError):
            await operation
    await store.close()
