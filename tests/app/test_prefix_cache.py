"""States of texts: the longest beginning is found, the least recently used go first, and memory is bounded."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import prefix_cache
from app.prefix_cache import OVERHEAD, PrefixCache
from tests.app.fakes import Floats, Ids

ROW = 8


def as_ids(ids: tuple[int, ...]) -> Ids:
    return np.array(ids, np.int32)


def row(value: float) -> Floats:
    return np.full(ROW, value, np.float32)


sequences = st.lists(st.integers(0, 2), max_size=5).map(tuple)


@given(
    steps=st.lists(st.tuples(st.booleans(), sequences, st.floats(0, 9, width=32)), max_size=40),
    room=st.integers(0, 4),
)
@example(  # What is looked up is used.
    steps=[(True, (0,), 1), (True, (1,), 2), (False, (0,), 0), (True, (2,), 3), (False, (0,), 0), (False, (1,), 0)],
    room=2,
)
@example(  # So is what is put again.
    steps=[(True, (0,), 1), (True, (1,), 2), (True, (0,), 1), (True, (2,), 3), (False, (0,), 0), (False, (1,), 0)],
    room=2,
)
def test_it_is_a_table_of_the_last_used_texts(steps: list[tuple[bool, tuple[int, ...], float]], room: int) -> None:
    cache = PrefixCache(room * (4 * ROW + OVERHEAD))
    expected: dict[tuple[int, ...], float] = {}  # the least recently used first
    for put, ids, value in steps:
        if put:
            expected[ids] = expected.pop(ids, value)
            while len(expected) > room:
                del expected[next(iter(expected))]
            cache.put(as_ids(ids), row(value))
        else:
            length, state = cache.longest(as_ids(ids))
            known = [count for count in range(len(ids), -1, -1) if ids[:count] in expected]
            if known:
                best = ids[: known[0]]
                expected[best] = expected.pop(best)
                assert state is not None
                assert (length, state.tolist()) == (known[0], row(expected[best]).tolist())
            else:
                assert (length, state) == (0, None)
        assert len(cache) == len(expected)
        assert cache.bytes == len(expected) * (4 * ROW + OVERHEAD)


def test_a_row_that_is_kept_is_a_copy_that_nobody_writes_to() -> None:
    cache = PrefixCache(1 << 20)
    state = row(1)
    cache.put(as_ids((1, 2)), state)
    state[:] = 5
    _, kept = cache.longest(as_ids((1, 2)))
    assert kept is not None
    assert kept.tolist() == row(1).tolist()
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 3


@pytest.mark.parametrize("size", [1, 2560])
@pytest.mark.parametrize("lengths", [1, 20_000])
def test_memory_stays_within_what_is_counted_and_that_within_the_bound(size: int, lengths: int) -> None:
    room = 1 << 20
    most = room // (4 * size + OVERHEAD)
    ids = np.arange(40_000, dtype=np.int32)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = PrefixCache(room)
        for number in range(2 * most):
            length = 1 + number * 7919 % lengths
            cache.put(ids[number : number + length], np.zeros(size, np.float32))
            used = tracemalloc.get_traced_memory()[0] - before
            # The empty cache itself and the few objects of this loop are not counted.
            assert used <= cache.bytes + 4096
            assert cache.bytes <= room
    finally:
        tracemalloc.stop()
    assert len(cache) == most


class Digests:
    """`hashlib` for the cache: counts what is read and how many digests are taken."""

    def __init__(self) -> None:
        self.bytes = self.digests = 0

    def blake2b(self, data: bytes = b"", *, digest_size: int, key: bytes, person: bytes) -> Digest:
        digest = Digest(self, hashlib.blake2b(digest_size=digest_size, key=key, person=person))
        digest.update(data)
        return digest


class Digest:
    """One running digest of those counted."""

    def __init__(self, counts: Digests, running: Any) -> None:
        self._counts, self._running = counts, running

    def update(self, data: bytes) -> None:
        self._counts.bytes += len(data)
        self._running.update(data)

    def copy(self) -> Digest:
        return Digest(self._counts, self._running.copy())

    def digest(self) -> bytes:
        self._counts.digests += 1
        taken: bytes = self._running.digest()
        return taken


def test_a_lookup_reads_the_ids_once_and_takes_a_digest_for_each_length_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = PrefixCache(1 << 20)
    ids = np.arange(100_000, dtype=np.int32)
    other = ids + 1
    for length in range(500, 100_500, 500):
        cache.put(ids[:length] if length % 1000 else other[:length], row(length))
        cache.put(other[:length], row(0))
    counts = Digests()
    monkeypatch.setattr(prefix_cache, "hashlib", counts)
    assert cache.longest(ids)[0] == 99_500
    assert (counts.digests, counts.bytes) == (200, 4 * 100_000)
    assert cache.longest(ids[:50_499])[0] == 49_500
    assert (counts.digests, counts.bytes) == (200 + 100, 4 * (100_000 + 50_000))


def test_lengths_that_no_entry_has_any_more_cost_a_lookup_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(3 * (4 * ROW + OVERHEAD))
    for ids in ((1,), (2,), (1, 2), (1, 2, 3, 4), (1, 2, 3)):  # Both of length 1 are pushed out.
        cache.put(as_ids(ids), row(len(ids)))
    counts = Digests()
    monkeypatch.setattr(prefix_cache, "hashlib", counts)
    assert cache.longest(as_ids((2,))) == (0, None)
    assert counts.digests == 0
    assert cache.longest(as_ids((1, 2, 3, 4, 5)))[0] == 4
    assert counts.digests == 3


def test_a_row_larger_than_the_cache_is_not_kept_and_pushes_nothing_out() -> None:
    cache = PrefixCache(4 * ROW + OVERHEAD)
    cache.put(as_ids((1,)), row(1))
    cache.put(as_ids((1, 2)), np.zeros(ROW + 1, np.float32))
    assert cache.longest(as_ids((1, 2)))[0] == 1
    off = PrefixCache(0)
    off.put(as_ids((1,)), row(1))
    assert (len(off), off.bytes, off.longest(as_ids((1,)))) == (0, 0, (0, None))
