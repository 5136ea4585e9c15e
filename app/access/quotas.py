"""How much each holder of a key has used of a minute's requests and tokens, for all processes of one service together.

Boundary: names and amounts in, seconds to wait out. Who asks, and what is told of it, `app.access.caller` knows.

A bucket that holds a minute's worth and is filled evenly is one number: when it will be full again. Taking moves that
into the future, by no more than a minute; time does the rest. So nothing runs to fill buckets, a bucket nobody uses is
as good as none, and a change of the quota needs no conversion.

The numbers lie in memory that a process shares with those that it forks, in a record for each name. Between looking
and taking, the record's bytes are locked for other processes, by a lock that the system lets go of with whoever holds
it: for the few microseconds that it takes, and only where a key has a quota. The clock is the system's monotonic one,
which is the same for all processes and moved by nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from app.access.key_file import MOST_KEYS

SECONDS = 60.0
"""What a quota is for, and how much of it may be used at once."""

_RECORD = struct.Struct("<16s2d")
"""The name's digest (zeros: no record yet); when its bucket of requests, and that of tokens, is full again."""
_PLACES = struct.Struct("<2d")
_DIGEST_BYTES = 16
_FREE = bytes(_DIGEST_BYTES)
_COUNT = 4 * MOST_KEYS


class Amount(NamedTuple):
    """So many of something of which a minute has `rate` (None: there is no end of it)."""

    number: int
    rate: int | None

    @property
    def seconds(self) -> float:
        """The part of the minute that it is."""
        return 0.0 if self.rate is None else self.number * SECONDS / self.rate

    @property
    def is_never_to_be_had(self) -> bool:
        """Whether it is more than a whole minute has."""
        return self.rate is not None and self.number > self.rate


@dataclass(frozen=True)
class Wait:
    """Why an amount cannot be had: not for so many seconds, or never where it is more than a whole minute's."""

    seconds: float


class Quotas:
    """The buckets of every name. Made before processes are forked, it is one for all of them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._file = os.memfd_create("pru-quotas", os.MFD_CLOEXEC)
        os.ftruncate(self._file, _COUNT * _RECORD.size)
        self._memory = mmap.mmap(self._file, _COUNT * _RECORD.size)
        self._places: dict[str, tuple[bytes, int]] = {}

    def close(self) -> None:
        """Let go of the memory; others that share it keep it."""
        self._memory.close()
        os.close(self._file)

    def take(self, name: str, requests: Amount, tokens: Amount) -> Wait | None:
        """Take amounts of requests and of tokens, both or neither; None where they were taken."""
        if requests.is_never_to_be_had or tokens.is_never_to_be_had:
            return Wait(math.inf)
        return self._move(name, requests.seconds, tokens.seconds)

    def give_back(self, name: str, requests: Amount, tokens: Amount) -> None:
        """Give back amounts that were taken and not used."""
        self._move(name, -requests.seconds, -tokens.seconds)

    def _move(self, name: str, requests: float, tokens: float) -> Wait | None:
        """Move the times at which a name's buckets are full again by so many seconds, unless that were too far."""
        digest, number = self._places.get(name) or self._find(name)
        start, memory = number * _RECORD.size, self._memory
        # As plain as can be: this is what every request of a key with a quota waits for, twice.
        fcntl.lockf(self._file, fcntl.LOCK_EX, _RECORD.size, start)
        try:
            found, requests_full, tokens_full = _RECORD.unpack_from(memory, start)
            if found == digest:
                now = self._now()
                requests_full = max(requests_full, now) + requests
                tokens_full = max(tokens_full, now) + tokens
                late = max(requests_full, tokens_full) - now - SECONDS
                # A millionth of a second is rounding and not use.
                if late > 1e-6:
                    return Wait(late)
                _PLACES.pack_into(memory, start + _DIGEST_BYTES, requests_full, tokens_full)
                return None
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _RECORD.size, start)
        # Another name has taken the record over, since this one's buckets were full.
        del self._places[name]
        return self._move(name, requests, tokens)

    def _find(self, name: str) -> tuple[bytes, int]:
        """The record of a name, made where there is none: a free one, or one whose buckets are full."""
        digest = hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
        start = int.from_bytes(digest[:8], "little")
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            now, usable = self._now(), None
            for step in range(_COUNT):
                number = (start + step) % _COUNT
                found, *full = _RECORD.unpack_from(self._memory, number * _RECORD.size)
                if found == digest:
                    break
                if usable is None and (found == _FREE or max(full) <= now):
                    usable = number
                if found == _FREE:
                    break
            if found != digest:
                assert usable is not None, "there are more records than names that may have used any in the last minute"
                number = usable
                _RECORD.pack_into(self._memory, number * _RECORD.size, digest, 0.0, 0.0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._places[name] = digest, number
        return digest, number
