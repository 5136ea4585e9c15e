"""Sessions in one Redis, which any number of servers on any number of machines may share.

Boundary: what each operation of `app.sessions.store.SessionStore` is in Redis. Changes are scripts
(`app.sessions.redis_scripts`), and all is sent by `app.sessions.redis_connection`.

Sessions and answers are a hash each, and two sorted sets say when each expires. Redis (7 or later) removes what is
expired when it is time, and `purge` what is left of it; what is read is judged by the servers' clocks, which should
agree to a second or so. One primary holds everything, since a script changes a session and an answer as one, and a
Redis Cluster may keep the two on different machines. The address leads to that primary, after a failover as well: no
Sentinel is asked.

What is acknowledged is as lasting as Redis is configured. It outlives Redis's own death where `appendonly` is `yes` and
`appendfsync` is `always`, and nothing is pushed out where `maxmemory-policy` is `noeviction`; `open` tells what is not
so. A replica that takes over may lack the last changes, since Redis acknowledges before its replicas do.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from redis.asyncio.connection import parse_url

from app.errors import AnswerExistsError, StoreError
from app.sessions.redis_connection import Argument, RedisConnection, foreign
from app.sessions.redis_scripts import DELETE, HOLDS, KEEP, PURGE
from app.sessions.store import SESSION_EXISTS, SessionRecord, StoredAnswer, checksum
from model.errors import ConfigurationError

Kept = TypeVar("Kept", SessionRecord, StoredAnswer)

PREFIX = "pru:1:"
"""Begins every key. The number is the version of the format: a change of it is the next, beside the one before."""
SESSIONS = f"{PREFIX}sessions".encode()
ANSWERS = f"{PREFIX}answers".encode()
"""The sorted sets of the keys of sessions and of answers, by when they expire."""
PURGE_LIMIT = 100
"""Sessions and answers a purge removes at a time: about a millisecond, for which every client of Redis waits."""
HOLDS_COUNT = 100
"""Sessions looked at a time, for as long."""

_LOGIN = r"(?:[^@/?#\s]*@)?"
_HOST = r"(?P<place>(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d+)?(?:/\d*)?)"
_FILES = r"ssl_(?:ca_certs|certfile|keyfile)=[^&#\s]+"
_ADDRESSES = [
    re.compile(f"redis://{_LOGIN}{_HOST}", re.ASCII),
    re.compile(rf"rediss://{_LOGIN}{_HOST}(?:\?{_FILES}(?:&{_FILES})*)?", re.ASCII),
    re.compile(rf"unix://{_LOGIN}(?P<place>/[^?#]+)(?:\?db=\d+)?", re.ASCII),
]
"""What an address may be. Other options that redis-py reads there would undo what the store sets."""

_READ: dict[str, Callable[[bytes], Any]] = {"str": bytes.decode, "int": int, "float": float, "bytes": bytes}
"""How a value of each annotated type is read. A float's `repr` brings the same float back."""

_WANTED = {
    ("appendonly", "yes"): "may lose acknowledged changes when it dies",
    ("appendfsync", "always"): "may lose acknowledged changes when its machine dies",
    ("maxmemory-policy", "noeviction"): "may push sessions out when its memory is full",
}
"""What Redis should be configured to, and what it may do otherwise."""


class RedisStore:
    """The session store in the Redis at `url`, which is waited for `timeout` seconds.

    The address is `redis://HOST:PORT/DATABASE`, `rediss://` with TLS, or `unix:///PATH?db=DATABASE`, with
    `USER:PASSWORD@` before the host or path where Redis asks for them. With TLS, `?ssl_ca_certs=`, `ssl_certfile=` and
    `ssl_keyfile=` may name files. Raises `ConfigurationError` where it is none of these.
    """

    def __init__(self, url: str, *, timeout: float = 2.0, now: Callable[[], float] = time.time) -> None:
        self._name = _name(url)
        self._now = now
        self._connection = RedisConnection(url, self._name, timeout)

    async def open(self) -> list[str]:
        """See that Redis is there and can be written."""
        await self._connection.start()
        # Removes nothing, since no key is empty. A replica, and whoever holds something else there, refuses.
        for name in (SESSIONS, ANSWERS):
            await self._connection.run("ZREM", name, "")
        return await self._warnings()

    async def close(self) -> None:
        """Finish what waits and close the connection."""
        await self._connection.stop()

    async def create(self, record: SessionRecord, answer: StoredAnswer | None = None) -> None:
        """Keep a session under a new id."""
        if not await self._keep(record, answer, replaced=""):
            raise StoreError(self._name, *SESSION_EXISTS)

    async def load(self, session_id: str) -> SessionRecord | None:
        """A session as it was last kept."""
        return await self._find(SessionRecord, _session_key(session_id))

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        """Put `record` in the place of the version before it."""
        return await self._keep(record, answer, replaced=str(record.version - 1))

    async def delete(self, session_id: str) -> bool:
        """Remove a session."""
        return bool(await self._script(DELETE, [_session_key(session_id), SESSIONS], [repr(self._now())]))

    async def answer(self, key: str) -> StoredAnswer | None:
        """The answer kept under a key."""
        return await self._find(StoredAnswer, _answer_key(key))

    async def purge(self) -> int:
        """Remove all that is expired, a part at a time."""
        removed = 0
        more = True
        while more:
            sessions, answers = await self._script(PURGE, [SESSIONS, ANSWERS], [repr(self._now()), PURGE_LIMIT])
            removed += sessions
            more = PURGE_LIMIT in (sessions, answers)
        return removed

    async def count(self) -> int:
        """Number of sessions that are not expired."""
        return int(await self._connection.run("ZCOUNT", SESSIONS, f"({self._now()!r}", "+inf"))

    async def holds(self, bundle: str) -> bool:
        """Whether a session stands on a bundle; looks at all sessions, a part at a time, until one does."""
        cursor, found = b"0", 0
        while not found:
            cursor, found = await self._script(HOLDS, [SESSIONS], [repr(self._now()), bundle, cursor, HOLDS_COUNT])
            if cursor == b"0":
                break
        return bool(found)

    async def _warnings(self) -> list[str]:
        """What Redis is configured to that may lose sessions; nothing where it does not tell."""
        with suppress(StoreError):
            found = await self._connection.run("CONFIG", "GET", *(name for name, _ in _WANTED))
            return [
                f"{self._name} {danger}: set its {name} to {wanted}"
                for (name, wanted), danger in _WANTED.items()
                if found.get(name.encode()) != wanted.encode()
            ]
        return []

    async def _keep(self, record: SessionRecord, answer: StoredAnswer | None, replaced: str) -> bool:
        """Keep a session in the place of a version, and the answer with it; False where another stands there."""
        now = self._now()
        keys = [_session_key(record.session_id), SESSIONS]
        values = [repr(now), replaced, *_row(record, now)]
        if answer is not None:
            keys += [_answer_key(answer.key), ANSWERS]
            values += _row(answer, now)
        reply = await self._script(KEEP, keys, values)
        if isinstance(reply, list):
            raise AnswerExistsError(self._read(StoredAnswer, dict(zip(reply[::2], reply[1::2], strict=True))))
        return bool(reply)

    async def _find(self, kind: type[Kept], key: bytes) -> Kept | None:
        found = await self._connection.run("HGETALL", key)
        kept = self._read(kind, found) if found else None
        return kept if kept and kept.expires_at > self._now() else None

    async def _script(self, script: str, keys: list[bytes], values: Iterable[Argument]) -> Any:
        return await self._connection.run("EVAL", script, len(keys), *keys, *values)

    def _read(self, kind: type[Kept], found: Mapping[bytes, bytes]) -> Kept:
        """A session or an answer from its hash, if that is one and its bytes are those that were written."""
        values = {name.decode(errors="replace"): value for name, value in found.items()}
        try:
            expected = int(values.pop("checksum"))
            there = [field for field in fields(kind) if field.name in values or field.default is MISSING]
            kept = kind(**{field.name: _READ[str(field.type)](values.pop(field.name)) for field in there})
        except (KeyError, ValueError):
            raise foreign(self._name) from None
        if values:
            raise foreign(self._name)
        if checksum(kept) != expected:
            raise StoreError(
                self._name, "holds a damaged session or answer", "restore its data, or remove that session"
            )
        return kept


def _row(kept: SessionRecord | StoredAnswer, now: float) -> list[Argument]:
    """What a script is told to keep of a session or an answer, less what has its default, which older servers lack."""
    named = {field.name: vars(kept)[field.name] for field in fields(kept) if vars(kept)[field.name] != field.default}
    named["checksum"] = checksum(kept)
    pairs = [it for name, value in named.items() for it in (name, repr(value) if isinstance(value, float) else value)]
    return [repr(kept.expires_at), _milliseconds(kept.expires_at - now), len(pairs), *pairs]


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _session_key(session_id: str) -> bytes:
    return f"{PREFIX}session:{session_id}".encode()


def _answer_key(key: str) -> bytes:
    return f"{PREFIX}answer:{key}".encode()


def _name(url: str) -> str:
    """What messages call the Redis at an address: neither its user nor its password."""
    for pattern in _ADDRESSES:
        # redis-py refuses some that look right: a port that is too large, an IPv6 address that is none.
        with suppress(ValueError):
            if (found := pattern.fullmatch(url)) and parse_url(url):
                return f"Redis at {found['place']}"
    # It is not repeated, since it may hold a password.
    raise ConfigurationError(
        "the session store must be a Redis named as redis://HOST:PORT/DATABASE, rediss://HOST:PORT/DATABASE (with TLS) "
        "or unix:///PATH?db=DATABASE, with USER:PASSWORD@ before the host or path; percent-encode both (%40 for @)"
    )
