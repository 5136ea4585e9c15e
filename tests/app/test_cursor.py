"""A session's arithmetic: the same state and scores however a text is cut, and the way back."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BlobError
from app.metrics import Metrics
from app.prefix_cache import PrefixCache
from app.reader import Reader, RequestLimits
from app.scheduler import Scheduler
from app.sessions.blob import Moved, from_blob, to_blob
from app.sessions.cursor import (
    FURTHEST,
    LONGEST_TAIL,
    REWINDABLE,
    Cursor,
    after,
    back_to,
    from_start,
    read_on,
)
from app.sessions.memory import Memory
from tests.app.fakes import Floats, Ids, NumpyEngine, small_vocabulary

T = TypeVar("T")

VOCABULARY = small_vocabulary()
SIZE = len(VOCABULARY)
ENGINE = NumpyEngine(SIZE)

texts = st.lists(st.integers(0, SIZE - 1), max_size=300)


def as_ids(ids: list[int]) -> Ids:
    return np.array(ids, np.int32)


def state_after(ids: list[int]) -> Floats:
    """The row after the initial `<eos>` and ids, read one at a time."""
    state = np.zeros(ENGINE.state_size, np.float32)
    for token_id in [VOCABULARY.eos_id, *ids]:
        _, state = ENGINE.step(token_id, state)
    return state


@asynccontextmanager
async def reading() -> AsyncIterator[Reader]:
    scheduler = Scheduler(lambda: NumpyEngine(SIZE), Metrics().of_model("tiny"))
    engine = await scheduler.start()
    sizes = engine.state_size, engine.hidden_size
    reader = Reader(VOCABULARY, *sizes, scheduler, PrefixCache(1 << 20), RequestLimits(1, 10_000))
    await reader.start()
    try:
        yield reader
    finally:
        await asyncio.to_thread(scheduler.close)


def run(work: Callable[[Reader], Awaitable[T]]) -> T:
    async def main() -> T:
        async with reading() as reader:
            return await work(reader)

    return asyncio.run(main())


def at_start(reader: Reader) -> Cursor:
    """Before the first token of a text."""
    return Cursor(reader.root, 0, reader.root, 0, as_ids([]))


def check(cursor: Cursor, ids: list[int]) -> None:
    """A cursor is where reading `ids` at once leads, and remembers what it must to go back."""
    np.testing.assert_allclose(cursor.state, state_after(ids), atol=1e-6)
    assert cursor.position == len(ids)
    assert cursor.tail.tolist() == ids[cursor.anchor_position :]
    np.testing.assert_allclose(cursor.anchor, state_after(ids[: cursor.anchor_position]), atol=1e-6)
    assert len(cursor.tail) <= LONGEST_TAIL


@settings(max_examples=25, deadline=None)
@given(ids=texts, cuts=st.lists(st.integers(0, 300), max_size=6))
def test_a_text_read_in_parts_leads_where_it_leads_at_once(ids: list[int], cuts: list[int]) -> None:
    edges = sorted({0, len(ids), *(min(cut, len(ids)) for cut in cuts)})

    async def work(reader: Reader) -> None:
        whole = await read_on(reader, at_start(reader), as_ids(ids))
        check(whole.cursor, ids)
        check(await from_start(reader, as_ids(ids)), ids)
        cursor, values, ranks = at_start(reader), [], []
        for start, stop in itertools.pairwise(edges):
            step = await read_on(reader, cursor, as_ids(ids[start:stop]))
            cursor = step.cursor
            check(cursor, ids[:stop])
            assert cursor.anchor_position <= max(0, stop - REWINDABLE)
            values += step.scores.log_probabilities.tolist()
            ranks += step.scores.ranks.tolist()
        assert values == pytest.approx(whole.scores.log_probabilities.tolist(), abs=1e-5)
        assert ranks == whole.scores.ranks.tolist()

    run(work)


@settings(max_examples=15, deadline=None)
@given(ids=texts, data=st.data())
def test_going_back_and_typing_again_leads_to_the_same_place(ids: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(ids)))

    async def work(reader: Reader) -> None:
        cursor = (await read_on(reader, at_start(reader), as_ids(ids[:cut]))).cursor
        cursor = (await read_on(reader, cursor, as_ids(ids[cut:]))).cursor
        position = data.draw(st.integers(cursor.anchor_position, cursor.position))
        back = await back_to(reader, cursor, position)
        check(back, ids[:position])
        check((await read_on(reader, back, as_ids(ids[position:]))).cursor, ids)

    run(work)


@pytest.mark.parametrize("known", [1, 10, REWINDABLE, REWINDABLE + 1])
def test_words_read_one_by_one_lead_there_too_whatever_states_are_still_known(known: int) -> None:
    generator = np.random.default_rng(known)

    async def work(reader: Reader) -> None:
        ids: list[int] = []
        cursor = at_start(reader)
        for count in (1, 60, 70, 1, 200, 3):
            new = generator.integers(SIZE, size=count).tolist()
            states = [state_after(ids + new[:read]) for read in range(count + 1)][-known:]
            cursor = await after(reader, cursor, as_ids(new), states)
            ids += new
            check(cursor, ids)
            assert cursor.anchor_position <= max(0, len(ids) - REWINDABLE)

    run(work)


def moved() -> Moved:
    ids = list(range(9))
    return Moved("b" * 64, Cursor(state_after(ids), 9, state_after(ids[:4]), 4, as_ids(ids[4:])), 12.5)


def remembered(
    words: Sequence[int] = (1, 2, 3),
    places: Sequence[int] = (4, 7, 9),
    hidden_size: int = ENGINE.hidden_size,
    own: Sequence[str] = ("Zog",),
) -> Memory:
    """What a session at position 9 may remember."""
    vectors = np.arange(3 * hidden_size, dtype=np.int8).reshape(3, hidden_size)
    return Memory(vectors, as_ids([*words]), as_ids([*places]), as_ids([7]), own)


class Garbled:
    """What is written where a memory should be."""

    def __init__(self, data: bytes) -> None:
        self.to_bytes = lambda: data


@pytest.mark.parametrize("memory", [None, remembered()])
def test_an_exported_session_comes_back_the_same(memory: Memory | None) -> None:
    sent = moved()
    sent = dataclasses.replace(sent, cursor=dataclasses.replace(sent.cursor, memory=memory))
    got = from_blob(to_blob(sent), ENGINE.state_size, ENGINE.hidden_size, SIZE)
    assert (got.bundle, got.ttl) == (sent.bundle, sent.ttl)
    assert got.cursor.state.tobytes() == sent.cursor.state.tobytes()
    assert got.cursor.anchor.tobytes() == sent.cursor.anchor.tobytes()
    assert got.cursor.tail.tolist() == sent.cursor.tail.tolist()
    assert (got.cursor.position, got.cursor.anchor_position) == (9, 4)
    assert (got.cursor.memory and got.cursor.memory.to_bytes()) == (memory and memory.to_bytes())


@pytest.mark.parametrize("memory", [None, remembered()])
def test_no_altered_byte_and_no_cut_of_an_exported_session_is_taken(memory: Memory | None) -> None:
    sent = moved()
    data = to_blob(dataclasses.replace(sent, cursor=dataclasses.replace(sent.cursor, memory=memory)))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(BlobError):
            from_blob(bytes(changed), ENGINE.state_size, ENGINE.hidden_size, SIZE)
        with pytest.raises(BlobError):
            from_blob(data[:place], ENGINE.state_size, ENGINE.hidden_size, SIZE)


def resealed(**changes: Any) -> bytes:
    """A blob with a right sum over something that makes no sense."""
    sent = moved()
    return to_blob(dataclasses.replace(sent, cursor=dataclasses.replace(sent.cursor, **changes)))


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (resealed(position=10), ENGINE.state_size),
        (resealed(anchor_position=-1), ENGINE.state_size),
        (resealed(tail=as_ids([SIZE] * 5)), ENGINE.state_size),
        (resealed(tail=as_ids([-1] * 5)), ENGINE.state_size),
        (resealed(state=np.full(ENGINE.state_size, np.nan, np.float32)), ENGINE.state_size),
        (resealed(state=np.full(ENGINE.state_size, -np.inf, np.float32)), ENGINE.state_size),
        (resealed(anchor=np.full(ENGINE.state_size, -3e38, np.float32)), ENGINE.state_size),
        (resealed(position=FURTHEST + 1, anchor_position=FURTHEST - 4), ENGINE.state_size),
        (resealed(position=10**30 + 5, anchor_position=10**30), ENGINE.state_size),
        (to_blob(dataclasses.replace(moved(), ttl=math.nan)), ENGINE.state_size),
        (to_blob(dataclasses.replace(moved(), ttl=math.inf)), ENGINE.state_size),
        (to_blob(dataclasses.replace(moved(), ttl=-1.0)), ENGINE.state_size),
        (resealed(), ENGINE.state_size + 1),
        (resealed(), ENGINE.state_size * 2),
        (resealed(position=4 + 129, tail=as_ids([1] * 129)), ENGINE.state_size),
        (resealed(memory=remembered(places=[4, 9, 10])), ENGINE.state_size),
        (resealed(memory=remembered(words=[1, 2, SIZE])), ENGINE.state_size),
        (resealed(memory=remembered(hidden_size=ENGINE.hidden_size + 1)), ENGINE.state_size),
        (resealed(memory=remembered(own=["two words"])), ENGINE.state_size),
        (resealed(memory=Garbled(b"")), ENGINE.state_size),
        (resealed(memory=Garbled(remembered().to_bytes()[:-5])), ENGINE.state_size),
        (resealed(memory=Garbled(remembered().to_bytes() + b"\nmore")), ENGINE.state_size),
        (resealed(memory=Garbled(b"\xff" * 12)), ENGINE.state_size),
    ],
)
def test_a_session_that_makes_no_sense_is_refused_whatever_its_sum(data: bytes, size: int) -> None:
    with pytest.raises(BlobError, match="exported session"):
        from_blob(data, size, ENGINE.hidden_size, SIZE)
