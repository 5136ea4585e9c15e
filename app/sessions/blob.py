"""A session as one portable, checked piece of bytes, moved between servers of the same bundle.

    magic "PRUSESSN", version uint16, length of the header uint32      all little-endian
    header                JSON: bundle, position, anchor_position, ttl
    state, anchor         float32 rows [S]
    tail                  int32 ids
    sha256                of everything before it

That is version 1. A personal session has version 2: its header also tells `personal`, how many bytes of
`app.sessions.memory` stand between tail and sum.

Boundary: bytes and a record's parts. The sum finds damage; it proves no origin, so everything is checked for sense too.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.errors import BlobError
from app.scoring import Floats, Ids
from app.sessions.cursor import FURTHEST, LONGEST_TAIL, Cursor
from app.sessions.memory import Memory

VERSION, PERSONAL = 1, 2
_MAGIC = b"PRUSESSN"
_PREAMBLE = struct.Struct("<8sHI")
_SUM_BYTES = hashlib.sha256().digest_size
_MEND = "send what GET /sessions/{id}/export answered, unchanged"


@dataclass(frozen=True, eq=False)
class Moved:
    """What travels of a session."""

    bundle: str
    cursor: Cursor
    ttl: float


def to_blob(moved: Moved) -> bytes:
    """The bytes of a session."""
    cursor = moved.cursor
    told: dict[str, str | int | float] = {
        "bundle": moved.bundle,
        "position": cursor.position,
        "anchor_position": cursor.anchor_position,
        "ttl": moved.ttl,
    }
    version, personal = VERSION, b""
    if cursor.memory is not None:
        version, personal = PERSONAL, cursor.memory.to_bytes()
        told["personal"] = len(personal)
    header = json.dumps(told).encode("ascii")
    rows = cursor.state.astype("<f4").tobytes() + cursor.anchor.astype("<f4").tobytes()
    tail = cursor.tail.astype("<i4").tobytes()
    body = _PREAMBLE.pack(_MAGIC, version, len(header)) + header + rows + tail + personal
    return body + hashlib.sha256(body).digest()


def bundle_of(data: bytes) -> str:
    """SHA-256 of the bundle that the session of some bytes belongs to; `BlobError` where they are damaged."""
    return _header(data).bundle


def from_blob(data: bytes, state_size: int, hidden_size: int, vocabulary_size: int) -> Moved:
    """The session of some bytes; `BlobError` where they are damaged, of another version, or make no sense."""
    header = _header(data)
    position, anchor_position = header.position, header.anchor_position
    body = data[header.end : -_SUM_BYTES]
    rows_end, tail_end = 2 * 4 * state_size, len(body) - (header.personal or 0)
    try:
        rows: Floats = np.frombuffer(body[:rows_end], "<f4").astype(np.float32).reshape(2, state_size)
        tail: Ids = np.frombuffer(body[rows_end:tail_end], "<i4").astype(np.int32)
        memory = None if header.personal is None else Memory.from_bytes(body[tail_end:])
    except ValueError:
        raise _unreadable() from None
    sound = (
        0 <= anchor_position <= position <= FURTHEST
        and 0 < header.ttl < math.inf
        and len(tail) == position - anchor_position <= LONGEST_TAIL
        # A cell grows by one with a token at most. What is no number is not within bounds either.
        and bool((np.abs(rows) <= FURTHEST).all())
        and bool(((tail >= 0) & (tail < vocabulary_size)).all())
        and (memory is None or memory.is_sound(hidden_size, vocabulary_size, position))
    )
    if not sound:
        raise BlobError(f"the exported session makes no sense; {_MEND}")
    return Moved(header.bundle, Cursor(rows[0], position, rows[1], anchor_position, tail, memory), header.ttl)


class _Header(NamedTuple):
    bundle: str
    position: int
    anchor_position: int
    ttl: float
    personal: int | None
    """Bytes of what a personal session remembers."""
    end: int
    """Where it ends in the data."""


def _header(data: bytes) -> _Header:
    """What the data says of itself, its sum checked."""
    body, total = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
    if len(data) < _PREAMBLE.size + _SUM_BYTES or not data.startswith(_MAGIC):
        raise BlobError(f"this is no exported session; {_MEND}")
    _, version, length = _PREAMBLE.unpack_from(data)
    if version not in (VERSION, PERSONAL):
        raise BlobError(f"the session was exported in format {version}, this server reads {PERSONAL}; export it anew")
    if hashlib.sha256(body).digest() != total:
        raise BlobError(f"the exported session was cut or altered; {_MEND}")
    end = _PREAMBLE.size + length
    try:
        told = json.loads(body[_PREAMBLE.size : end])
        personal = int(told["personal"]) if version == PERSONAL else None
        if personal is not None and not 0 <= personal <= len(body) - end:
            raise _unreadable()
        return _Header(
            str(told["bundle"]), int(told["position"]), int(told["anchor_position"]), float(told["ttl"]), personal, end
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise _unreadable() from None


def _unreadable() -> BlobError:
    return BlobError(f"the exported session cannot be read, or is of a model of another size; {_MEND}")
