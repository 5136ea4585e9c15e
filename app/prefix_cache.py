"""States of texts that were read, so that what is typed after them costs only what is new.

Boundary: ids and packed rows, in memory, on the event loop's thread alone. The least recently used go first.
"""

from __future__ import annotations

import hashlib
import secrets
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Iterator

from app.scoring import Floats, Ids

OVERHEAD = 600
"""Bytes an entry is counted with besides its row: digest, array, and places in tables, which grow in leaps. tracemalloc
saw up to 510 where every entry has a length of its own and 380 where they share one; the rest is for the allocator."""


class PrefixCache:
    """Rows by the ids read before them, `max_bytes` of them at most with all that keeps them (0: none).

    A key is a keyed digest of the ids, of 128 bits, so that no text can be made to meet another's state. Looking one up
    passes over the ids once, however long, and takes a digest at each length up to theirs that some entry has.

    Entries are told apart by their owner, and so are their lengths: how long a text takes tells nothing of what others
    have read. It costs memory, since a text that two owners read is kept for each, and time, since each reads it. The
    memory is one for all, so that how much others read may push out what one has: that alone can be noticed.

    Not safe between threads: tables change between the steps of a lookup.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._key = secrets.token_bytes(32)
        self._rows: OrderedDict[bytes, tuple[_Shelf, int, Floats]] = OrderedDict()
        """Whose each entry is, its length and its row; the least recently used first."""
        self._shelves: dict[str, _Shelf] = {}
        self.bytes = 0
        """What the entries are counted with: their rows and `OVERHEAD` each."""

    def longest(self, ids: Ids, owner: str = "") -> tuple[int, Floats | None]:
        """How many ids the longest beginning of `ids` [n] has whose state is here, and that row [S], for reading only.

        0 and None where there is none. What is found counts as used just now.
        """
        if (shelf := self._shelves.get(owner)) is None:
            return 0, None
        known = [(length, digest) for length, digest in self._digests(ids, shelf) if digest in self._rows]
        if not known:
            return 0, None
        length, digest = known[-1]
        self._rows.move_to_end(digest)
        return length, self._rows[digest][2]

    def put(self, ids: Ids, state: Floats, owner: str = "") -> None:
        """Remember a copy of the row [S] after all of `ids` [n]; where there is one already, it counts as used.

        A row that is larger than the whole cache is not kept.
        """
        size = state.nbytes + OVERHEAD
        if size > self._max_bytes:
            return
        if (shelf := self._shelves.get(owner)) is None:
            shelf = self._shelves[owner] = _Shelf(owner)
        digest = hashlib.blake2b(ids.tobytes(), digest_size=16, key=self._key, person=shelf.person).digest()
        if digest in self._rows:
            self._rows.move_to_end(digest)
            return
        row = state.copy()
        row.flags.writeable = False
        self._rows[digest] = shelf, len(ids), row
        self.bytes += size
        shelf.add(len(ids))
        while self.bytes > self._max_bytes:
            self._forget_oldest()

    def __len__(self) -> int:
        return len(self._rows)

    def _forget_oldest(self) -> None:
        _, (shelf, length, row) = self._rows.popitem(last=False)
        self.bytes -= row.nbytes + OVERHEAD
        shelf.remove(length)
        if not shelf.lengths:
            del self._shelves[shelf.owner]

    def _digests(self, ids: Ids, shelf: _Shelf) -> Iterator[tuple[int, bytes]]:
        """The digest of each beginning of `ids` that is as long as some entry of the shelf, the shortest first."""
        running = hashlib.blake2b(digest_size=16, key=self._key, person=shelf.person)
        read = 0
        for length in shelf.lengths[: bisect_right(shelf.lengths, len(ids))]:
            running.update(ids[read:length].tobytes())
            read = length
            yield length, running.copy().digest()


class _Shelf:
    """The lengths that some entry of an owner has."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.person = hashlib.sha256(owner.encode()).digest()[: hashlib.blake2b.PERSON_SIZE]
        """What makes the digests of one owner's ids others than those of another's."""
        self.lengths: list[int] = []
        """Ascending."""
        self._entries_of: Counter[int] = Counter()

    def add(self, length: int) -> None:
        self._entries_of[length] += 1
        if self._entries_of[length] == 1:
            insort(self.lengths, length)

    def remove(self, length: int) -> None:
        self._entries_of[length] -= 1
        if not self._entries_of[length]:
            del self._entries_of[length]
            del self.lengths[bisect_left(self.lengths, length)]
