"""Sessions in one SQLite file, which several processes may share.

Boundary: what each operation of `app.sessions.store.SessionStore` is in SQL. Each is a function of a connection, run in
a transaction by `app.sessions.sqlite_thread`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from app.errors import AnswerExistsError, StoreError
from app.sessions.sqlite_file import damaged
from app.sessions.sqlite_thread import SQLiteThread
from app.sessions.store import SESSION_EXISTS, SessionRecord, StoredAnswer, checksum

Kept = TypeVar("Kept", SessionRecord, StoredAnswer)

PURGE_SESSIONS = 30
PURGE_PAGES = 300
"""Sessions and pages a purge removes at a time: 10 to 30 ms of work, for which requests have to wait."""

_SESSION = ", ".join(field.name for field in fields(SessionRecord))
_ANSWER = ", ".join(field.name for field in fields(StoredAnswer))
_SESSION_VALUES = ", ".join(f":{field.name}" for field in fields(SessionRecord))
_ANSWER_VALUES = ", ".join(f":{field.name}" for field in fields(StoredAnswer))

_LOAD = f"SELECT checksum, {_SESSION} FROM sessions WHERE session_id = ? AND expires_at > ?"
_CREATE = f"INSERT INTO sessions (checksum, {_SESSION}) VALUES (:checksum, {_SESSION_VALUES})"
_REPLACE = f"""
UPDATE sessions SET (checksum, {_SESSION}) = (:checksum, {_SESSION_VALUES})
WHERE session_id = :session_id AND version = :version - 1 AND expires_at > :now
"""
_DELETE = "DELETE FROM sessions WHERE session_id = ? AND expires_at > ?"
_COUNT = "SELECT count(*) FROM sessions WHERE expires_at > ?"
_HOLDS = "SELECT EXISTS (SELECT 1 FROM sessions WHERE bundle = ? AND expires_at > ?)"
_FIND_ANSWER = f"SELECT checksum, {_ANSWER} FROM answers WHERE key = ? AND expires_at > ?"
# An expired answer may still be there, and gives way.
_KEEP_ANSWER = f"REPLACE INTO answers (checksum, {_ANSWER}) VALUES (:checksum, {_ANSWER_VALUES})"
_PURGE = "DELETE FROM {0} WHERE rowid IN (SELECT rowid FROM {0} WHERE expires_at <= ? LIMIT ?)"


class SQLiteStore:
    """The session store in the file at `path`. A lock of another program is waited for `busy_timeout` seconds."""

    def __init__(self, path: Path, *, busy_timeout: float = 2.0, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._thread = SQLiteThread(path, busy_timeout)

    async def open(self) -> list[str]:
        """Open the file, made where it is missing."""
        await self._thread.start()
        return []

    async def close(self) -> None:
        """Finish what waits and close the file."""
        await self._thread.stop()

    async def create(self, record: SessionRecord, answer: StoredAnswer | None = None) -> None:
        """Keep a session under a new id."""
        await self._thread.run(partial(self._create, record, answer), writes=True)

    async def load(self, session_id: str) -> SessionRecord | None:
        """A session as it was last kept."""
        return await self._thread.run(partial(self._load, session_id), writes=False)

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        """Put `record` in the place of the version before it."""
        return await self._thread.run(partial(self._replace, record, answer), writes=True)

    async def delete(self, session_id: str) -> bool:
        """Remove a session."""
        return await self._thread.run(partial(self._delete, session_id), writes=True)

    async def answer(self, key: str) -> StoredAnswer | None:
        """The answer kept under a key."""
        return await self._thread.run(partial(self._answer, key), writes=False)

    async def purge(self) -> int:
        """Remove all that is expired, a part at a time."""
        removed = 0
        more = True
        while more:
            sessions, more = await self._thread.run(self._purge_some, writes=True)
            removed += sessions
        return removed

    async def count(self) -> int:
        """Number of sessions that are not expired."""
        return await self._thread.run(self._count, writes=False)

    async def holds(self, bundle: str) -> bool:
        """Whether a session stands on a bundle."""
        return await self._thread.run(partial(self._holds, bundle), writes=False)

    def _create(self, record: SessionRecord, answer: StoredAnswer | None, connection: sqlite3.Connection) -> None:
        self._refuse_known(answer, connection)
        self._keep_answer(answer, connection)
        try:
            connection.execute(_CREATE, _row(record))
        except sqlite3.IntegrityError:
            raise StoreError(str(self._path), *SESSION_EXISTS) from None

    def _load(self, session_id: str, connection: sqlite3.Connection) -> SessionRecord | None:
        row = connection.execute(_LOAD, (session_id, self._now())).fetchone()
        return None if row is None else self._checked(SessionRecord(*row[1:]), row[0])

    def _replace(self, record: SessionRecord, answer: StoredAnswer | None, connection: sqlite3.Connection) -> bool:
        self._refuse_known(answer, connection)
        replaced = connection.execute(_REPLACE, {**_row(record), "now": self._now()}).rowcount == 1
        if replaced:
            self._keep_answer(answer, connection)
        return replaced

    def _delete(self, session_id: str, connection: sqlite3.Connection) -> bool:
        return connection.execute(_DELETE, (session_id, self._now())).rowcount == 1

    def _answer(self, key: str, connection: sqlite3.Connection) -> StoredAnswer | None:
        row = connection.execute(_FIND_ANSWER, (key, self._now())).fetchone()
        return None if row is None else self._checked(StoredAnswer(*row[1:]), row[0])

    def _purge_some(self, connection: sqlite3.Connection) -> tuple[int, bool]:
        """Remove some of what is expired and shorten the file; how many sessions went, and whether there is more."""
        now = self._now()
        sessions = connection.execute(_PURGE.format("sessions"), (now, PURGE_SESSIONS)).rowcount
        answers = connection.execute(_PURGE.format("answers"), (now, PURGE_SESSIONS)).rowcount
        free = _free_pages(connection)
        for _ in range(min(free, PURGE_PAGES)):
            # The statement gives one page back at each step, and Python's module steps it once, whatever its argument.
            connection.execute("PRAGMA incremental_vacuum(1)")
        return sessions, sessions + answers > 0 or 0 < _free_pages(connection) < free

    def _count(self, connection: sqlite3.Connection) -> int:
        [sessions] = connection.execute(_COUNT, (self._now(),)).fetchone()
        return int(sessions)

    def _holds(self, bundle: str, connection: sqlite3.Connection) -> bool:
        [found] = connection.execute(_HOLDS, (bundle, self._now())).fetchone()
        return bool(found)

    def _refuse_known(self, answer: StoredAnswer | None, connection: sqlite3.Connection) -> None:
        if answer is not None and (known := self._answer(answer.key, connection)) is not None:
            raise AnswerExistsError(known)

    def _keep_answer(self, answer: StoredAnswer | None, connection: sqlite3.Connection) -> None:
        if answer is not None:
            connection.execute(_KEEP_ANSWER, _row(answer))

    def _checked(self, kept: Kept, expected: int) -> Kept:
        """`kept` if its bytes are those that were written: SQLite notices damage to its own structure only."""
        if checksum(kept) != expected:
            raise damaged(self._path)
        return kept


def _row(kept: SessionRecord | StoredAnswer) -> dict[str, Any]:
    return {**vars(kept), "checksum": checksum(kept)}


def _free_pages(connection: sqlite3.Connection) -> int:
    [pages] = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)
