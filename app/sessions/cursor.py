"""Where a text has been read to, and the way back: the arithmetic of a session, without its storage.

Boundary: states and ids. A session stores no state for each position it can return to, which would be megabytes, but
one from at least `REWINDABLE` tokens ago and the ids read since: reading them again gives the same states, to the bit
where the engine is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.reader import Reader
from app.scoring import Floats, Ids, Scores

if TYPE_CHECKING:
    from app.sessions.memory import Memory

REWINDABLE = 64
"""Positions that a session can go back from where it stands, at least; to its start if that is nearer."""
LONGEST_TAIL = 2 * REWINDABLE
"""Ids kept since the anchor before it is moved on: then every token is read again once."""

FURTHEST = 2**31 - 1
"""The furthest position: what a session remembers has its places as int32."""


@dataclass(frozen=True, eq=False)
class Cursor:
    """A place in a text: the packed row [S] there, and one before it with the ids between."""

    state: Floats
    position: int
    """Tokens read after the initial `<eos>`."""
    anchor: Floats
    anchor_position: int
    tail: Ids
    """Ids from the anchor on, `position - anchor_position` of them."""
    memory: Memory | None = None
    """What a personal session remembers of what was typed before."""


@dataclass(frozen=True, eq=False)
class Step:
    """What reading on gave: where it led, the scores of the ids if asked for, and [V] what comes next if asked for."""

    cursor: Cursor
    scores: Scores
    likely: Floats | None


def written_before(cursor: Cursor, unk_id: int) -> Ids:
    """Ids by which it is known how the next token is written: some word, where the session went back to its anchor."""
    return cursor.tail if len(cursor.tail) or not cursor.position else np.array([unk_id], np.int32)


async def from_start(reader: Reader, ids: Ids) -> Cursor:
    """After a whole text, of which what was read before is remembered."""
    split = max(0, len(ids) - REWINDABLE)
    anchor = (await reader.read_from_start(ids[:split])).state
    state = (await reader.read(anchor, ids[split:])).state
    return Cursor(state, len(ids), anchor, split, ids[split:])


async def read_on(reader: Reader, cursor: Cursor, ids: Ids, *, scored: bool = True, likely: bool = True) -> Step:
    """Read `ids` [n >= 0] on from a place."""
    if len(ids) <= REWINDABLE:
        last = await reader.read(cursor.state, ids, ids if scored else None, likely=likely)
        return Step(await after(reader, cursor, ids, [last.state]), last.scores, last.likely)
    # The rest is as far as a session goes back, so the anchor is where it begins.
    first, rest = ids[:-REWINDABLE], ids[-REWINDABLE:]
    begun = await reader.read(cursor.state, first, first if scored else None)
    last = await reader.read(begun.state, rest, rest if scored else None, likely=likely)
    place = cursor.position + len(first)
    scores = Scores(
        np.concatenate([begun.scores.log_probabilities, last.scores.log_probabilities]),
        np.concatenate([begun.scores.ranks, last.scores.ranks]),
    )
    return Step(Cursor(last.state, place + len(rest), begun.state, place, rest), scores, last.likely)


async def after(reader: Reader, cursor: Cursor, ids: Ids, states: Sequence[Floats]) -> Cursor:
    """The place after `ids` were read; `states` are the rows after the last of them (where there are none, before)."""
    position, tail = cursor.position + len(ids), np.concatenate([cursor.tail, ids])
    if len(tail) <= LONGEST_TAIL:
        return replace(cursor, state=states[-1], position=position, tail=tail)
    if len(states) > REWINDABLE:
        anchor = states[-1 - REWINDABLE]
    else:
        anchor = (await reader.read(cursor.anchor, tail[:-REWINDABLE])).state
    return Cursor(states[-1], position, anchor, position - REWINDABLE, tail[-REWINDABLE:], cursor.memory)


async def back_to(reader: Reader, cursor: Cursor, position: int) -> Cursor:
    """An earlier place, not before the anchor."""
    kept = cursor.tail[: position - cursor.anchor_position]
    state = (await reader.read(cursor.anchor, kept)).state
    memory = cursor.memory and cursor.memory.until(position)
    return replace(cursor, state=state, position=position, tail=kept, memory=memory)
