"""Sessions in an SQLite file: its format, its transactions, and the address that names it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreError
from app.sessions import open_store
from app.sessions.sqlite import SQLiteStore
from app.sessions.sqlite_thread import GROUP_LIMIT
from model.errors import ConfigurationError
from tests.app.sessions.records import START, TTL, Clock, answer, record, sqlite_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SQLiteStore]:
    """One open store."""
    store = await sqlite_store(path, clock)
    yield store
    await store.close()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that stores run, by its first word. Must come before the store."""
    run: list[str] = []
    plain: Callable[..., sqlite3.Connection] = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = plain(*arguments, **options)
        connection.set_trace_callback(lambda statement: run.append(statement.split()[0]))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return run


def ask(path: Path, query: str) -> Any:
    """The first value that a query gives on a connection of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(query).fetchone()[0]


async def test_what_waits_is_committed_together_up_to_a_limit(
    statements: list[str], store: SQLiteStore, clock: Clock
) -> None:
    await asyncio.gather(*(store.create(record(f"s{n}")) for n in range(100)))
    async with clock.held(store):
        statements.clear()
        waiting = [asyncio.create_task(store.replace(record(f"s{n}", 2))) for n in range(100)]
    assert await asyncio.gather(*waiting) == 100 * [True]
    assert GROUP_LIMIT == 64
    assert statements.count("COMMIT") == 3, "the operation that held the thread, 64, and 36"
    assert statements.count("UPDATE") == 100


async def test_what_only_reads_takes_no_lock(statements: list[str], store: SQLiteStore, path: Path) -> None:
    await store.create(record(), answer())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await store.load("a") == record()
        assert await store.answer("key") == answer()
        assert await store.count() == 1


async def test_what_is_cancelled_while_it_waits_is_never_done(store: SQLiteStore, clock: Clock) -> None:
    async with clock.held(store):
        cancelled = asyncio.create_task(store.create(record("a")))
        kept = asyncio.create_task(store.create(record("b")))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await kept
    assert (await store.load("a"), await store.load("b")) == (None, record("b"))


async def test_an_operation_that_fails_is_undone_alone(store: SQLiteStore, clock: Clock) -> None:
    await store.create(record("a"))
    together = [
        store.create(record("b"), answer("k1")),
        store.create(record("a"), answer("k2")),
        store.create(record("c", expires_at=2**70), answer("k3")),
        store.create(record("d"), answer("k4")),
    ]
    async with clock.held(store):
        tasks = [asyncio.create_task(operation) for operation in together]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in done] == [type(None), StoreError, OverflowError, type(None)]
    assert [await store.load(name) is not None for name in "abcd"] == [True, True, False, True]
    assert [await store.answer(f"k{n}") is not None for n in (1, 2, 3, 4)] == [True, False, False, True]


async def test_purging_gives_the_files_space_back(
    statements: list[str], store: SQLiteStore, path: Path, clock: Clock
) -> None:
    await asyncio.gather(*(store.create(record(f"s{n}", floats=2000)) for n in range(300)))
    kept = record("kept", floats=2000, expires_at=START + 9 * TTL)
    await store.create(kept)
    assert ask(path, "PRAGMA wal_checkpoint(TRUNCATE)") == 0
    before = path.stat().st_size
    clock.time = START + TTL
    statements.clear()
    assert await store.purge() == 300
    assert statements.count("COMMIT") < 25, "10 parts for the sessions, and no more than the pages need"
    assert ask(path, "PRAGMA wal_checkpoint(TRUNCATE)") == 0
    assert before > 300 * 2 * 8000
    assert path.stat().st_size < 100_000
    assert await store.load("kept") == kept


async def test_requests_are_answered_between_the_parts_of_a_purge(store: SQLiteStore, clock: Clock) -> None:
    await asyncio.gather(*(store.create(record(f"s{n}")) for n in range(1000)))
    await store.create(record("a", expires_at=START + 9 * TTL))
    clock.time = START + TTL
    purging = asyncio.create_task(store.purge())
    while await store.load("s0") is not None or await store.load("a") is None:
        await asyncio.sleep(0)
    assert not purging.done()
    assert await purging == 1000


async def test_the_file_its_companions_and_its_folder_are_made_for_their_owner(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "new" / "folder" / "sessions.db"
    store = await sqlite_store(path, clock)
    await store.create(record())
    rights = {each.name: oct(each.stat().st_mode & 0o777) for each in path.parent.iterdir()}
    await store.close()
    assert rights == dict.fromkeys(["sessions.db", "sessions.db-wal", "sessions.db-shm"], "0o600")
    assert [each.name for each in path.parent.iterdir()] == ["sessions.db"]


async def test_the_file_says_what_it_is_and_is_written_ahead(store: SQLiteStore, path: Path) -> None:
    pragmas = ("application_id", "user_version", "journal_mode", "auto_vacuum")
    assert [ask(path, f"PRAGMA {name}") for name in pragmas] == [int.from_bytes(b"PRUS"), 2, "wal", 2]


async def test_a_file_of_the_format_before_is_brought_up_with_its_sessions(path: Path, clock: Clock) -> None:
    store = await sqlite_store(path, clock)
    await store.create(record("a"), answer())
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        older.execute("ALTER TABLE sessions DROP COLUMN personal")
        older.execute("PRAGMA user_version = 1")
    both = await asyncio.gather(*(sqlite_store(path, clock) for _ in range(2)))
    assert ask(path, "PRAGMA user_version") == 2
    for each in both:
        assert (await each.load("a"), await each.answer("key")) == (record("a"), answer())
    assert await both[0].replace(replace(record("a", 2), personal=b"learnt"))
    assert await both[1].load("a") == replace(record("a", 2), personal=b"learnt")
    for each in both:
        await each.close()


async def test_an_address_is_a_path_as_sqlalchemy_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here.db", "sqlite:///sub/a b%20.db", f"sqlite:///{tmp_path}/absolute.db"):
        store = open_store(url)
        await store.open()
        await store.create(record(expires_at=1e12))
        await store.close()
    found = {each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*.db")}
    assert found == {"here.db", "sub/a b%20.db", "absolute.db"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sessions.db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite://host/x.db",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=ro",
        "SQLITE:///x.db",
        "postgresql://user:secret@host",
    ],
)
def test_an_address_that_names_no_file_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("sqlite:////data/sessions.db")) as raised:
        open_store(url)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
