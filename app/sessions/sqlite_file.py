"""The SQLite file of a session store: opened, checked, made where it is new; and what SQLite's errors mean for it.

Boundary: one connection and its format. Who uses it on which thread is `app.sessions.sqlite_thread`, what is asked of
it `app.sessions.sqlite`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import StoreError

APPLICATION_ID = 0x50525553
"""Marks an SQLite file as a session store: "PRUS"."""
FORMAT = 2
"""Version of the tables below. A change of them is the next."""
_CHANGES = {1: "ALTER TABLE sessions ADD COLUMN personal BLOB NOT NULL DEFAULT x''"}
"""What makes the next format of an older one. Sessions in it are as they were."""

_TABLES = """
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    bundle TEXT NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    anchor_position INTEGER NOT NULL,
    ttl REAL NOT NULL,
    expires_at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    anchor BLOB NOT NULL,
    state BLOB NOT NULL,
    tail BLOB NOT NULL,
    personal BLOB NOT NULL DEFAULT x''
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE TABLE answers (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    expires_at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX answers_by_expiry ON answers (expires_at);
"""

_DAMAGED = (
    "is damaged or not an SQLite file",
    "restore it, or remove it with its -wal and -shm to start without sessions",
)
_REASONS = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", "end what holds it for longer than a moment"),
    sqlite3.SQLITE_FULL: ("is full", "free some room on its disk"),
    sqlite3.SQLITE_READONLY: (
        "is read-only",
        "let the service's user write it, its -wal and -shm, and its folder",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "make it a file that the service's user can read and write, in a folder where that user may create others",
    ),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "see to its disk and the room on it"),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""What SQLite's result codes say is wrong, and how to mend it."""


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the file at `path` from another put in its place; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open the store at `path`, made where it is missing. Raises `StoreError`, `sqlite3.Error` or `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _create_private(path)
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
    try:
        _prepare(connection, path, time.monotonic() + busy_timeout)
        # Nothing is synced at a commit, only when the write-ahead log is moved into the file. What was committed
        # survives a process that is killed; after a power cut the last moments may be gone, but the file is sound.
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def check_writable(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.Error` where the file can be read only, by writing what it holds already."""
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def explain(error: Exception, path: Path) -> Exception:
    """`StoreError` in the place of what SQLite or the file system raised; any other error as it is."""
    if isinstance(error, sqlite3.Error):
        return StoreError(str(path), *_REASONS.get(_code(error), ("failed", f"see to the file: {error}")))
    if isinstance(error, OSError):
        mend = f"correct its path or the rights on its folder: {error.strerror}"
        return StoreError(str(path), "cannot be opened", mend)
    return error


def damaged(path: Path) -> StoreError:
    """The error of a row that is not what was written."""
    return StoreError(str(path), *_DAMAGED)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; that of any error where the module of Python raised it by itself."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _create_private(path: Path) -> None:
    """Make an empty file that others cannot read; SQLite gives its companions the same rights.

    Only where there is none: closing a file lets go of every lock this process has on it, another connection's too.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return


def _prepare(connection: sqlite3.Connection, path: Path, deadline: float) -> None:
    """Check the format, or make the tables of an empty file."""
    while _is_empty(connection):
        try:
            # Both are properties of the file, and the first must precede its tables.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            _make_tables(connection)
        except sqlite3.OperationalError as error:
            # Where two processes make one file, SQLite fails the later switch to WAL without waiting.
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if _number(connection, "application_id") != APPLICATION_ID:
        raise StoreError(str(path), "is an SQLite file of another program", "name another file for the sessions")
    if _number(connection, "user_version") in _CHANGES:
        _bring_up(connection)
    if (found := _number(connection, "user_version")) != FORMAT:
        raise StoreError(
            str(path),
            f"has format {found}, and this version reads format {FORMAT}",
            "serve with the version that wrote it, or name another file for the sessions",
        )


def _make_tables(connection: sqlite3.Connection) -> None:
    with _writing(connection):
        if _is_empty(connection):
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")


def _bring_up(connection: sqlite3.Connection) -> None:
    """Make the present format of an older one, or leave it as it was."""
    with _writing(connection):
        # Another process may have been faster.
        while (found := _number(connection, "user_version")) in _CHANGES:
            connection.execute(_CHANGES[found])
            connection.execute(f"PRAGMA user_version = {found + 1}")


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that is committed at the end of the block, or undone."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_empty(connection: sqlite3.Connection) -> bool:
    [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return tables == 0 and _number(connection, "application_id") == 0


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    [value] = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)
