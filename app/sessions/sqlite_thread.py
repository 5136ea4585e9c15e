"""The one thread that owns a store's connection, and its group commits.

Boundary: runs functions of a connection in transactions and resolves futures; what they do is `app.sessions.sqlite`.
All that waits, up to a limit, becomes one transaction, so that the cost of a commit is shared just where there is much
to do. Nothing is resolved before its COMMIT. A function that fails is undone alone; where the transaction itself fails,
all of it fails, the connection is dropped, and the next group begins with a new one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from app.errors import StoreError
from app.sessions.sqlite_file import check_writable, connect, explain, identity

T = TypeVar("T")

GROUP_LIMIT = 64
"""Most operations in one transaction: what the last of them waits for, and what is lost when it fails."""


class _Operation(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    operation: _Operation
    result: Any = None
    error: Exception | None = None


class SQLiteThread:
    """Runs operations on the file at `path`, in the order they came. Belongs to the event loop that started it."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    async def start(self) -> None:
        """Begin, and open the file; `StoreError` where that fails: then the next operation tries to open it."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            # A process that ends without closing its store must not wait for this thread: the file is always sound.
            self._thread = Thread(target=self._serve, name="sessions", daemon=True)
            self._thread.start()
        await self.run(check_writable, writes=True)

    async def stop(self) -> None:
        """Finish what waits, close the file and end the thread."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        self._queue.put(None)
        await asyncio.to_thread(thread.join)

    async def run(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        """Run `work` in a transaction and await its commit.

        Cancelled while it waits, it is left out; cancelled later, it may or may not have been committed. It may run
        twice, since the first time may be rolled back, and must touch nothing but the connection.
        """
        if self._thread is None:
            raise StoreError(str(self._path), "is closed", "the service is stopping, or has not opened it yet")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Operation(work, writes, future))
        return await future

    def _serve(self) -> None:
        """Take groups until there are no more."""
        waiting: list[_Operation | None] = []
        while None not in waiting:
            waiting = [self._queue.get()]
            with suppress(Empty):
                while len(waiting) < GROUP_LIMIT:
                    waiting.append(self._queue.get_nowait())
            group = [operation for operation in waiting if operation and not operation.future.cancelled()]
            if group:
                outcomes = self._outcomes(group)
                # The loop is closed where the service was stopped in haste: nobody waits any more.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_resolve, outcomes)
        self._disconnect()

    def _outcomes(self, group: Sequence[_Operation]) -> list[_Outcome]:
        """Run a group; each operation with its result or its error."""
        try:
            outcomes = _transact(self._connected(), group)
        except Exception as error:
            outcomes = [_Outcome(operation, error=error) for operation in group]
        outcomes = [
            outcome._replace(error=explain(outcome.error, self._path)) if outcome.error else outcome
            for outcome in outcomes
        ]
        if any(isinstance(outcome.error, StoreError) for outcome in outcomes):
            # What SQLite remembers of the file is not trusted after an error, since the file may be mended meanwhile.
            self._disconnect()
        return outcomes

    def _connected(self) -> sqlite3.Connection:
        """The connection, a new one where there is none or where its file was removed or replaced.

        SQLite goes on with a removed file without an error, and what it then acknowledges is lost.
        """
        if self._connection is not None and identity(self._path) != self._opened:
            self._disconnect()
        if self._connection is None:
            self._connection = connect(self._path, self._busy_timeout)
            self._opened = identity(self._path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(sqlite3.Error):
                connection.close()


def _transact(connection: sqlite3.Connection, group: Sequence[_Operation]) -> list[_Outcome]:
    """Run a group in one transaction; raise `sqlite3.Error` where that cannot begin or be committed."""
    # Readers wait for nobody. A writer that began as a reader could not wait for its turn.
    connection.execute("BEGIN IMMEDIATE" if any(operation.writes for operation in group) else "BEGIN")
    outcomes = []
    for place, operation in enumerate(group):
        outcome = _attempt(connection, operation)
        outcomes.append(outcome)
        if isinstance(outcome.error, sqlite3.Error):
            # It may have taken the transaction with it (a full disk) or keep it from being committed (a damaged page):
            # begin again without this operation.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [outcome, *_transact(connection, [*group[:place], *group[place + 1 :]])]
    connection.execute("COMMIT")
    return outcomes


def _attempt(connection: sqlite3.Connection, operation: _Operation) -> _Outcome:
    """Run one operation; where it fails by itself, and not by the file, it alone is undone."""
    connection.execute("SAVEPOINT operation")
    try:
        outcome = _Outcome(operation, operation.work(connection))
    except sqlite3.Error as error:
        return _Outcome(operation, error=error)
    except Exception as error:
        connection.execute("ROLLBACK TO operation")
        outcome = _Outcome(operation, error=error)
    connection.execute("RELEASE operation")
    return outcome


def _resolve(outcomes: Sequence[_Outcome]) -> None:
    """Hand a group's results over, on the event loop."""
    for operation, result, error in outcomes:
        if operation.future.done():
            continue
        if error is not None:
            operation.future.set_exception(error)
        else:
            operation.future.set_result(result)
