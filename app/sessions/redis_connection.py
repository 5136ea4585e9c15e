"""The one connection of a Redis session store: what waits is sent together; and what Redis's errors mean.

Boundary: sends commands and resolves futures; what they are is `app.sessions.redis`'s. All that waits, up to a limit,
travels together and in the order it was asked, so that a slow network and a disk that is synced are waited for once by
all. Where Redis hangs, whoever waits hears so after one timeout or two, and not in turn.

Nothing is ever sent twice. Where a reply is lost, nobody knows whether the command was carried out, and a change sent
again could find its own work in its way, take it for another server's, and be made anew on top of it. So it fails with
`StoreError`, which says that it may have been done; the client's `Idempotency-Key` makes it safe to ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig

from app.errors import StoreError

GROUP_LIMIT = 64
"""Most commands sent together: what the last of them waits for, and what is uncertain when the connection breaks."""

Argument = str | bytes | int
Command = Sequence[Argument]

_CLUSTER = (
    "is a Redis Cluster, over which a session and its answer cannot be changed as one",
    "name a single Redis as the session store",
)
_FOREIGN = (
    "holds data of another program or version where sessions belong",
    "remove it, or use another database of it",
)
_REASONS: dict[type[Exception], tuple[str, str]] = {
    AuthenticationError: (
        "refuses the service's user or password",
        "correct those in the address of the session store",
    ),
    NoPermissionError: (
        "lacks a right for the service's user",
        "grant it all commands on the keys of the session store",
    ),
    BusyLoadingError: ("is still loading its data", "wait until it is done"),
    OutOfMemoryError: ("is full", "raise its maxmemory or remove other data"),
    ReadOnlyError: ("is a replica and cannot be written", "name its primary as the session store"),
    AskError: _CLUSTER,
    ClusterCrossSlotError: _CLUSTER,
    ClusterDownError: _CLUSTER,
    InvalidResponse: ("does not speak as Redis does", "correct the address of the session store"),
    TimeoutError: ("did not answer in time", "see whether it hangs or is overloaded"),
    ConnectionError: ("cannot be reached", "see that it runs and that the address is right: {}"),
}
"""What redis-py's errors say is wrong, and how to mend it."""
_UNCERTAIN = "a change may have been made: repeat it with the same Idempotency-Key, or look first"


class _Operation(NamedTuple):
    command: Command
    future: asyncio.Future[Any]


class RedisConnection:
    """Runs commands on the Redis at `url`, in the order they came. Belongs to the event loop that started it.

    `name` is what messages call it. A connection and a reply are waited for `timeout` seconds each.
    """

    def __init__(self, url: str, name: str, timeout: float) -> None:
        self._url = url
        self._name = name
        self._timeout = timeout
        self._queue: asyncio.Queue[_Operation | None]
        self._client: Redis
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, if it has not begun. The connection is made when something is asked."""
        if self._task is not None:
            return
        self._queue = asyncio.Queue()
        pool = ConnectionPool.from_url(
            self._url,
            max_connections=1,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=Retry(NoBackoff(), 0),
            # Neither is needed, and a user's rights may not cover what they send.
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._client = Redis.from_pool(pool)
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Finish what waits, close the connection and end the task."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._queue.put_nowait(None)
        await task

    async def run(self, *command: Argument) -> Any:
        """Send a command and await its reply; `StoreError` where it failed.

        Cancelled while it waits, it is left out; cancelled later, it may or may not be carried out.
        """
        if self._task is None:
            raise StoreError(self._name, "is closed", "the service is stopping, or has not begun to use it yet")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Operation(command, future))
        return await future

    async def _serve(self) -> None:
        """Take groups until there are no more."""
        waiting: list[_Operation | None] = []
        while None not in waiting:
            waiting = [await self._queue.get()]
            while len(waiting) < GROUP_LIMIT and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            group = [operation for operation in waiting if operation and not operation.future.cancelled()]
            if group:
                replies = await self._replies([operation.command for operation in group])
                for operation, reply in zip(group, replies, strict=True):
                    _resolve(operation.future, reply)
        await self._disconnect()

    async def _replies(self, commands: Sequence[Command]) -> Sequence[Any]:
        """What Redis says to each command: its reply, or the error."""
        sent = False
        try:
            await self._connect()
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            sent = True
            replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            replies = [error] * len(commands)
            if isinstance(error, TimeoutError):
                self._refuse_waiting(error)
        replies = [
            explain(reply, self._name, uncertain=sent) if isinstance(reply, Exception) else reply for reply in replies
        ]
        if any(isinstance(reply, Exception) for reply in replies):
            # What a connection was to Redis (its user, a primary) is not trusted after an error: it may be mended.
            await self._disconnect()
        return replies

    def _refuse_waiting(self, error: TimeoutError) -> None:
        """Fail all that waits: whoever waited while Redis hung has waited long enough."""
        for _ in range(self._queue.qsize()):
            operation = self._queue.get_nowait()
            if operation is None:
                self._queue.put_nowait(None)
            else:
                _resolve(operation.future, explain(error, self._name, uncertain=False))

    async def _connect(self) -> None:
        """Have a connection in the pool that is not closed, as far as can be seen. Sends no command."""
        pool = self._client.connection_pool
        await pool.release(await pool.get_connection())  # type: ignore[no-untyped-call]

    async def _disconnect(self) -> None:
        with suppress(RedisError):
            await self._client.aclose()


def foreign(name: str) -> StoreError:
    """The error of what this store did not write."""
    return StoreError(name, *_FOREIGN)


def explain(error: Exception, name: str, *, uncertain: bool) -> Exception:
    """`StoreError` in the place of what redis-py raised; any other error as it is.

    `uncertain` says that commands were sent: where their replies are lost, they may have been carried out.
    """
    # Through a Unix socket, redis-py hides that the password is refused.
    cause = error.__cause__ if isinstance(error.__cause__, RedisError) else error
    if not isinstance(cause, RedisError):
        return error
    if isinstance(cause, ResponseError) and str(cause).startswith(("WRONGTYPE", "FOREIGN")):
        return foreign(name)
    reasons = (_REASONS[kind] for kind in type(cause).__mro__ if kind in _REASONS)
    wrong, mend = next(reasons, ("failed", "see to it: {}"))
    # Of a command that it does not know, Redis repeats the arguments, and those are the clients'.
    mend = mend.format(str(cause).partition(", with args")[0])
    lost = uncertain and type(cause) in {ConnectionError, InvalidResponse, TimeoutError}
    return StoreError(name, wrong, mend, _UNCERTAIN) if lost else StoreError(name, wrong, mend)


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)
