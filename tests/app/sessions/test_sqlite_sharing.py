"""Several processes and connections on one SQLite file, and one that is killed."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import StoreError
from tests.app.sessions.records import Clock, following, record, sqlite_store
from tests.source import ROOT

pytestmark = pytest.mark.anyio

REPLACE_ONCE = """
import asyncio, sys
from app.sessions import open_store
from tests.app.sessions.records import record

async def main():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    print("ready", flush=True)
    input()
    await store.open()
    try:
        await store.create(record("only", expires_at=1e12))
    except Exception as error:
        print(error, file=sys.stderr)
    done = await asyncio.gather(*(store.replace(record("only", 2, expires_at=1e12)) for _ in range(25)))
    await store.close()
    print(sum(done))

asyncio.run(main())
"""
"""Waits for a line, makes the store, creates a session and replaces it 25 times; prints how often that was done."""

ADVANCE = """
import asyncio, sys
from app.sessions import open_store
from tests.app.sessions.records import following, record

async def advance(store, name):
    kept = record(name, floats=2000, expires_at=1e12)
    await store.create(kept)
    while True:
        kept = following(kept)
        assert await store.replace(kept)
        print(name, kept.version, flush=True)

async def main():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    await store.open()
    await asyncio.gather(*(advance(store, name) for name in "abcd"))

asyncio.run(main())
"""
"""Replaces four sessions without end, and prints every version that was acknowledged."""


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of another program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def process(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_a_lock_that_ends_in_time_is_waited_for(path: Path, clock: Clock, other: sqlite3.Connection) -> None:
    store = await sqlite_store(path, clock)
    other.execute("BEGIN IMMEDIATE")
    creating = asyncio.create_task(store.create(record()))
    await asyncio.sleep(0.05)
    assert not creating.done()
    other.execute("ROLLBACK")
    await creating
    assert await store.load("a") == record()
    await store.close()


async def test_a_group_that_reads_before_it_writes_waits_for_its_turn_as_well(
    path: Path, clock: Clock, other: sqlite3.Connection
) -> None:
    store = await sqlite_store(path, clock)
    await store.create(record())
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE sessions SET expires_at = expires_at + 1")
    async with clock.held(store):
        loading = asyncio.create_task(store.load("a"))
        replacing = asyncio.create_task(store.replace(record(version=2)))
    await asyncio.sleep(0.05)
    other.execute("COMMIT")
    loaded = await loading
    assert loaded is not None
    assert loaded.expires_at == record().expires_at + 1
    assert await replacing
    await store.close()


@pytest.mark.parametrize("begun", [False, True], ids=["no byte in it", "a page without a table"])
async def test_an_empty_file_that_another_holds_is_waited_for(
    path: Path, clock: Clock, other: sqlite3.Connection, begun: bool
) -> None:
    if begun:
        # SQLite then fails the switch to WAL at once, however long it is told to wait.
        other.execute("CREATE TABLE theirs (name TEXT)")
        other.execute("DROP TABLE theirs")
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.create_task(sqlite_store(path, clock))
    await asyncio.sleep(0.05)
    assert not opening.done()
    other.execute("ROLLBACK")
    store = await opening
    await store.create(record())
    assert await store.load("a") == record()
    await store.close()


async def test_a_file_that_another_fills_in_the_meantime_is_left_to_it(
    path: Path, clock: Clock, other: sqlite3.Connection
) -> None:
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.create_task(sqlite_store(path, clock))
    await asyncio.sleep(0.05)
    assert not opening.done()
    other.execute("CREATE TABLE theirs (name TEXT)")
    other.execute("COMMIT")
    with pytest.raises(StoreError, match="another program"):
        await opening
    assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


def test_processes_that_make_one_store_together_make_one_and_one_change(path: Path) -> None:
    processes = [process(REPLACE_ONCE, path) for _ in range(3)]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    ended = [each.communicate("\n") for each in processes]
    assert sorted(int(printed) for printed, _ in ended) == [0, 0, 1]
    assert sorted("already" in said for _, said in ended) == [False, True, True]


async def test_every_version_that_was_acknowledged_survives_a_kill(path: Path, clock: Clock) -> None:
    with process(ADVANCE, path) as writer:
        assert writer.stdout is not None
        acknowledged: dict[str, int] = {}
        for count, line in enumerate(writer.stdout):
            name, number = line.split()
            acknowledged[name] = int(number)
            if count == 1000:
                writer.kill()
        assert writer.wait() == -signal.SIGKILL
    assert sorted(acknowledged) == list("abcd")
    assert sum(acknowledged.values()) > 1000
    store = await sqlite_store(path, clock)
    for name, version in acknowledged.items():
        kept = await store.load(name)
        assert kept is not None
        assert kept.version in {version, version + 1}
        assert kept == record(name, kept.version, floats=2000, expires_at=1e12)
        assert await store.replace(following(kept))
    await store.close()
