"""Sessions and answers as the store keeps them, and back.

Boundary: conversions alone; what a store is, `app.sessions.store` says.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from app.errors import FieldError, IdempotencyError
from app.session_schemas import SessionAnswer
from app.sessions.cursor import Cursor
from app.sessions.memory import Memory
from app.sessions.store import SessionRecord, StoredAnswer

A = TypeVar("A", bound=SessionAnswer)

KEY_SECONDS = 24 * 3600.0
"""How long the answer to a key is kept."""
MOST_KEPT_TOKENS = 16_384
"""Tokens of the longest answer that is kept: about 2 MB of JSON."""


@dataclass(frozen=True)
class Idempotency:
    """The key a request came with, and what tells it from another request."""

    key: str
    fingerprint: str


def cursor_of(record: SessionRecord) -> Cursor:
    """The place a session stands at."""
    return Cursor(
        np.frombuffer(record.state, np.float32),
        record.position,
        np.frombuffer(record.anchor, np.float32),
        record.anchor_position,
        np.frombuffer(record.tail, np.int32),
        memory_of(record),
    )


def memory_of(record: SessionRecord) -> Memory | None:
    """What a session remembers of its user, if it is personal."""
    return Memory.from_bytes(record.personal) if record.personal else None


def moved_to(record: SessionRecord, cursor: Cursor) -> SessionRecord:
    """A session's next version: at another place, and used just now."""
    return replace(
        record,
        version=record.version + 1,
        position=cursor.position,
        state=cursor.state.tobytes(),
        anchor=cursor.anchor.tobytes(),
        anchor_position=cursor.anchor_position,
        tail=cursor.tail.tobytes(),
        personal=cursor.memory.to_bytes() if cursor.memory else b"",
        expires_at=time.time() + record.ttl,
    )


def check_can_be_kept(once: Idempotency | None, tokens: int) -> None:
    """Raise `FieldError` where the answer to a text of so many tokens is too large to be kept under its key."""
    if once is not None and tokens > MOST_KEPT_TOKENS:
        raise FieldError(
            ("text",),
            f"the answer to {tokens} tokens is too large to be kept under an Idempotency-Key, which is for at most "
            f"{MOST_KEPT_TOKENS} at a time; append the text in parts, or without a key",
        )


def kept_answer(once: Idempotency | None, answer: SessionAnswer) -> StoredAnswer | None:
    """An answer as it is kept under its key."""
    if once is None:
        return None
    return StoredAnswer(once.key, once.fingerprint, answer.model_dump_json().encode(), time.time() + KEY_SECONDS)


def replayed(stored: StoredAnswer, once: Idempotency | None, kind: type[A]) -> A:
    """A kept answer, if it is that of the same request."""
    if once is None or stored.fingerprint != once.fingerprint:
        raise IdempotencyError("this Idempotency-Key was used for another request; use a new key for each request")
    return kind.model_validate_json(stored.body)
