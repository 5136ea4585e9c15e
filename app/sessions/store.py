"""What sessions are and what every store of them promises: the contract that SQLite and Redis implement.

Boundary: bytes and numbers. A store keeps records and gives them back unchanged; it knows no engine, text or HTTP, and
never looks into a state. What it acknowledged it has: an operation that could not be made to last raises `StoreError`
and has changed nothing, but where a connection broke before the reply came: then nobody knows, and the error says so.
Expired sessions and answers are as good as gone, whether `purge` has removed them or not.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

SESSION_EXISTS = ("has a session of this id already", "create it under a new id")
"""What is wrong, and how to mend it, where a session is to be made a second time."""


@dataclass(frozen=True)
class SessionRecord:
    """One session: where a text has been read to, and where a rewind begins to read again."""

    session_id: str
    """Its name; drawn by chance, so that nobody finds another's."""
    bundle: str
    """SHA-256 of the bundle the state belongs to."""
    version: int
    """1 when created; each change is the next."""
    position: int
    """Tokens read after the initial `<eos>`."""
    state: bytes
    """Packed float32 row after `position` tokens."""
    anchor: bytes
    """Packed float32 row after `anchor_position` tokens, from which a rewind reads again."""
    anchor_position: int
    """Tokens read before the anchor."""
    tail: bytes
    """The int32 ids read since the anchor, `position - anchor_position` of them."""
    ttl: float
    """Seconds the session lives after its last use."""
    expires_at: float
    """Unix seconds from which on the session is gone."""
    personal: bytes = b""
    """What a personal session remembers of its user; empty where it is none."""


@dataclass(frozen=True)
class StoredAnswer:
    """What a request with an `Idempotency-Key` was answered, for the same request sent again."""

    key: str
    """The key, with whatever keeps one client's keys apart from another's."""
    fingerprint: str
    """SHA-256 of route and body: the same key with another one is a mistake."""
    body: bytes
    """The answer as it was sent."""
    expires_at: float
    """Unix seconds from which on the answer is gone."""


def checksum(kept: SessionRecord | StoredAnswer) -> int:
    """CRC-32 of the bytes in a record, by which a store tells that they are those it was given."""
    found = 0
    for value in vars(kept).values():
        if isinstance(value, bytes):
            found = zlib.crc32(value, found)
    return found


class SessionStore(Protocol):
    """Keeps sessions, for any number of tasks on the event loop that opened it and of processes beside it.

    Operations of one task happen in its order, and each sees all that were finished before it began. Every method may
    raise `StoreError`.
    """

    async def open(self) -> list[str]:
        """Make the store ready; raise `StoreError` where it cannot be: it may be used all the same once it is mended.

        Returns what an operator should know of it, a line each: how it is set up to promise less than it might.
        """

    async def close(self) -> None:
        """Finish what was asked and let go of everything. Whatever is asked later raises `StoreError`."""

    async def create(self, record: SessionRecord, answer: StoredAnswer | None = None) -> None:
        """Keep a session under a new id, and in the same transaction the answer to the request that made it.

        Raises `AnswerExistsError` where an answer of that key is kept already.
        """

    async def load(self, session_id: str) -> SessionRecord | None:
        """A session as it was last kept; None where it is unknown or expired."""

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        """Put `record` in the place of the version before it, with the answer in the same transaction.

        False, and nothing changes, where the session's version is another, or it is unknown or expired. Raises
        `AnswerExistsError`, whatever the version, where an answer of that key is kept already: the change that a
        request asks for was then made by the same request, sent before.
        """

    async def delete(self, session_id: str) -> bool:
        """Remove a session; False where it is unknown or expired."""

    async def answer(self, key: str) -> StoredAnswer | None:
        """The answer kept under a key; None where it is unknown or expired."""

    async def purge(self) -> int:
        """Remove all that is expired and give its space back; the number of sessions removed."""

    async def count(self) -> int:
        """Number of sessions that are not expired."""

    async def holds(self, bundle: str) -> bool:
        """Whether a session that is not expired stands on the bundle of this SHA-256."""
