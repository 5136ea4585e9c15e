"""Continuations of sessions: what a request makes of a session's place, and words on their way to a client.

Boundary: a request and a place in, what draws the words out; and what `SessionService.write_on` yields, either waited
for to the end or handed on one by one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from app.generation import Generation, never_first
from app.personal import Adaptation
from app.reader import Reader
from app.running import Running, Tell
from app.sampling import Sampler
from app.session_schemas import ContinueAnswer, ContinueRequest, GeneratedToken
from app.sessions.adapting import recalled
from app.sessions.cursor import REWINDABLE, Cursor, written_before
from app.writing import Writer

Item = GeneratedToken | ContinueAnswer


async def last_of(written: AsyncIterator[Item]) -> ContinueAnswer:
    """The answer that comes after all tokens."""
    async for item in written:
        last = item
    assert isinstance(last, ContinueAnswer)
    return last


def running(written: AsyncIterator[Item]) -> Running[Item]:
    """The same, written on whether or not the client reads."""

    async def work(tell: Tell[Item]) -> None:
        async for item in written:
            tell(item)

    return Running(work)


def generation_of(
    reader: Reader, request: ContinueRequest, cursor: Cursor, seed: int, adaptation: Adaptation
) -> Generation:
    """What draws the words that are asked for, from where a session stands."""
    vocabulary = reader.vocabulary
    banned = np.array([] if request.include_unk else [vocabulary.unk_id], np.int32)
    return Generation(
        reader,
        Writer(vocabulary, written_before(cursor, vocabulary.unk_id).tolist()),
        Sampler(request.temperature, request.top_k, request.top_p, seed),
        banned,
        never_first(vocabulary, banned, at_start=cursor.position == 0),
        request.stop,
        REWINDABLE + 1,
        recalled(reader, cursor, adaptation),
    )
