"""What the SQLite store does where its file cannot be used: one line that says so, nothing lost, and on when it can."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreError
from app.sessions.sqlite import SQLiteStore
from tests.app.sessions.faults import refused
from tests.app.sessions.records import Clock, answer, following, record, sqlite_store

pytestmark = pytest.mark.anyio

FLOATS = 4000
"""Size of the states, so that a session is several pages of its own."""
SESSIONS = [record(f"s{n}", floats=FLOATS) for n in range(8)]

Connect = Callable[..., sqlite3.Connection]


class Room:
    """How many pages the files of stores may have."""

    pages = 2**30


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Limits the files of stores; must come before the store."""
    room = Room()

    class Limited(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            if statement.startswith("BEGIN"):
                super().execute(f"PRAGMA max_page_count = {room.pages}")
            return super().execute(statement, *parameters)

    plain: Connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: plain(path, factory=Limited, **options))
    return room


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SQLiteStore]:
    """A store that holds a few sessions and waits for locks only shortly."""
    store = await sqlite_store(path, clock, busy_timeout=0.05)
    for kept in SESSIONS:
        await store.create(kept)
    yield store
    await store.close()


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """No file grows beyond `size` in this process: the system fails the write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def assert_all_is_there(store: SQLiteStore) -> None:
    assert [await store.load(kept.session_id) for kept in SESSIONS] == SESSIONS
    assert await store.count() == len(SESSIONS)


async def assert_it_works_again(store: SQLiteStore) -> None:
    await assert_all_is_there(store)
    await store.create(record("new", floats=FLOATS), answer("new"))
    assert await store.replace(record("new", 2, floats=FLOATS))
    assert await store.load("new") == record("new", 2, floats=FLOATS)
    assert await store.answer("new") == answer("new")


def change(path: Path, place: int, data: bytes) -> bytes:
    """Write over a part of a file; what was there."""
    with path.open("r+b") as file:
        file.seek(place)
        before = file.read(len(data))
        file.seek(place)
        file.write(data)
    return before


async def test_a_store_that_another_locks_reads_but_does_not_write_until_it_is_free(
    store: SQLiteStore, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await refused(store.create(record("new"), answer("new")), str(path), "locked", "try again")
        together = [store.replace(following(kept)) for kept in SESSIONS]
        done = await asyncio.gather(*together, return_exceptions=True)
        assert [type(result) for result in done] == len(SESSIONS) * [StoreError]
        await assert_all_is_there(store)
        other.execute("ROLLBACK")
    await assert_it_works_again(store)


async def test_a_file_that_cannot_be_written_opens_no_store(
    store: SQLiteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Connect = sqlite3.connect

    def read_only(path: Path, **options: Any) -> sqlite3.Connection:
        return plain(f"{path.as_uri()}?mode=ro", uri=True, **options)

    # Rights do not keep the superuser from writing, so SQLite opens the file as it does where rights keep it.
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", read_only)
        await refused(sqlite_store(path, clock), str(path), "read-only", "service's user")
    await assert_it_works_again(store)


async def test_rights_that_keep_the_user_from_writing_open_no_store(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    await store.close()
    path.parent.chmod(0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("rights do not keep this user from writing")
    await refused(sqlite_store(path, clock), str(path), "cannot be")
    path.parent.chmod(0o700)
    path.chmod(0o400)
    await refused(sqlite_store(path, clock), str(path), "read-only", "-shm")
    for each in path.parent.glob("sessions.db*"):
        each.chmod(0o600)
    again = await sqlite_store(path, clock)
    await assert_it_works_again(again)
    await again.close()


async def test_a_path_that_cannot_be_a_file_opens_no_store(tmp_path: Path, clock: Clock) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("not a folder")
    await refused(sqlite_store(folder, clock), str(folder), "cannot be opened")
    await refused(sqlite_store(file / "sessions.db", clock), str(file / "sessions.db"), "cannot be opened")
    folder.rmdir()
    await (await sqlite_store(folder, clock)).close()
    assert folder.is_file()


async def test_a_full_disk_loses_nothing_and_room_is_used_when_there_is_some(
    room: Room, store: SQLiteStore, path: Path
) -> None:
    # No fewer than the file has already.
    room.pages = 1
    await refused(store.create(record("new", floats=FLOATS), answer("new")), str(path), "full", "room", "try again")
    await refused(store.replace(record("s1", 2, floats=9 * FLOATS), answer("new")), str(path), "full")
    await assert_all_is_there(store)
    assert await store.answer("new") is None
    assert await store.delete("s0"), "a session that is removed makes room for another"
    await store.create(SESSIONS[0])
    await refused(store.create(record("new", floats=FLOATS)), str(path), "full")
    room.pages = 2**30
    await assert_it_works_again(store)


async def test_who_needs_no_room_does_not_fail_with_who_does(room: Room, path: Path, clock: Clock) -> None:
    room.pages = 100
    store = await sqlite_store(path, clock)
    await asyncio.gather(*(store.create(record(f"s{n}")) for n in range(4)))
    async with clock.held(store):
        tasks = [
            asyncio.create_task(operation)
            for operation in (
                store.replace(record("s0", 2), answer("k0")),
                store.create(record("large", floats=200_000), answer("k1")),
                store.delete("s1"),
                store.create(record("larger", floats=300_000)),
                store.load("s2"),
            )
        ]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in done if isinstance(result, Exception)] == [StoreError, StoreError]
    assert [result for result in done if not isinstance(result, Exception)] == [True, True, record("s2")]
    assert await store.load("s0") == record("s0", 2)
    assert [await store.answer(key) for key in ("k0", "k1")] == [answer("k0"), None]
    assert [await store.load(name) for name in ("s1", "large", "larger")] == [None, None, None]
    await store.close()


async def test_a_write_that_the_system_fails_fails_all_that_was_written_with_it(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    wal = path.with_name("sessions.db-wal")
    with files_no_longer_than(wal.stat().st_size + 50_000):
        async with clock.held(store):
            tasks = [asyncio.create_task(store.replace(following(kept), answer(kept.session_id))) for kept in SESSIONS]
        for task in tasks:
            await refused(task, str(path), "cannot be read or written", "room")
        await assert_all_is_there(store)
        assert [await store.answer(kept.session_id) for kept in SESSIONS] == len(SESSIONS) * [None]
    await assert_it_works_again(store)


async def test_a_damaged_head_opens_no_store_until_it_is_mended(store: SQLiteStore, path: Path, clock: Clock) -> None:
    await store.close()
    head = change(path, 0, b"\xa5" * 100)
    await refused(sqlite_store(path, clock), str(path), "damaged", "restore")
    change(path, 0, head)
    again = await sqlite_store(path, clock)
    await assert_it_works_again(again)
    await again.close()


async def test_damage_in_the_middle_is_found_and_what_is_whole_is_still_served(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    await store.close()
    middle = path.stat().st_size // 2
    before = change(path, middle, b"\xa5" * 20_000)
    again = await sqlite_store(path, clock)
    loaded = await asyncio.gather(*(again.load(kept.session_id) for kept in SESSIONS), return_exceptions=True)
    failed = [result for result in loaded if isinstance(result, StoreError)]
    whole = [result for result, kept in zip(loaded, SESSIONS, strict=True) if result == kept]
    assert failed
    assert whole
    assert len(failed) + len(whole) == len(SESSIONS)
    assert all(error.details.startswith(f"{path} is damaged") for error in failed)
    change(path, middle, before)
    await assert_it_works_again(again)
    await again.close()


async def test_a_state_or_an_answer_of_which_one_bit_fell_over_is_not_served(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    kept = answer(body=b"one of many words " * 1000)
    assert await store.replace(following(SESSIONS[3]), kept)
    await store.close()
    for whole in (following(SESSIONS[3]).state, kept.body):
        place = path.read_bytes().index(whole[2000:2100]) + 50
        change(path, place, bytes([path.read_bytes()[place] ^ 1]))
    again = await sqlite_store(path, clock)
    await refused(again.load("s3"), str(path), "damaged")
    await refused(again.answer(kept.key), str(path), "damaged")
    assert await again.load("s4") == SESSIONS[4]
    assert await again.delete("s3")
    assert await again.load("s3") is None
    await again.close()


async def test_a_store_of_another_format_is_not_opened(store: SQLiteStore, path: Path, clock: Clock) -> None:
    await store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 9")
    before = path.read_bytes()
    await refused(sqlite_store(path, clock), str(path), "format 9", "format 2")
    assert path.read_bytes() == before


async def test_a_file_of_another_program_is_left_as_it_is(path: Path, clock: Clock) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (name TEXT)")
    before = path.read_bytes()
    await refused(sqlite_store(path, clock), str(path), "another program")
    assert path.read_bytes() == before
    path.write_bytes(text := b"A text that somebody named as the file of sessions.\n" * 100)
    await refused(sqlite_store(path, clock), str(path), "not an SQLite file")
    assert path.read_bytes() == text


async def test_a_file_that_is_removed_is_made_anew_and_nothing_goes_to_the_old_one(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for each in path.parent.glob("sessions.db*"):
        each.unlink()
    await store.create(record("new"))
    assert await store.count() == 1
    other = await sqlite_store(path, clock)
    assert await other.load("new") == record("new")
    await other.close()


async def test_a_file_that_is_restored_from_a_copy_is_read_from_then_on(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    copy = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    await store.delete("s0")
    for each in path.parent.glob("sessions.db*"):
        each.unlink()
    shutil.move(copy, path)
    await assert_it_works_again(store)
