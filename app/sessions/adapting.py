"""A personal session's arithmetic: as `app.sessions.cursor`'s, with the hidden vectors on the way remembered.

Boundary: states, ids and memories, read by a `Reader`. What is remembered is `app.sessions.memory`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from app.generation import Adapt
from app.personal import Adaptation
from app.reader import Reader
from app.reading import Result, hidden_of
from app.scoring import Floats, Ids, Scores
from app.sessions.cursor import REWINDABLE, Cursor, Step, after, written_before
from app.sessions.memory import Memory, OwnWord, Recall, kept
from app.suggestions import Place
from model.ranking import rank

PIECE = 16
"""Tokens read at a time, since all log-probabilities in the place of each are needed: 2 MB for 33,278 words."""
FEW = 4
"""Rows that are mixed on the event loop: a fraction of a millisecond."""


async def start(reader: Reader, ids: Ids, own: Sequence[OwnWord], adaptation: Adaptation) -> Cursor:
    """After a whole text, which the session begins by remembering."""
    first, split = max(0, len(ids) - kept(adaptation.window)), max(0, len(ids) - REWINDABLE)
    state = (await reader.read_from_start(ids[:first])).state
    anchor = await reader.read_seen(state, ids[first:split])
    last = await reader.read_seen(anchor.state, ids[split:])
    vectors = np.concatenate([_vectors(anchor)[:-1], _vectors(last)[:-1]])
    memory = Memory.nothing(reader.hidden_size).learn(vectors, ids[first:], first).note(own, 0)
    return Cursor(last.state, len(ids), anchor.state, split, ids[split:], memory.cut(adaptation.window))


async def read_on(
    reader: Reader, cursor: Cursor, ids: Ids, own: Sequence[OwnWord], adaptation: Adaptation
) -> tuple[Step, Place]:
    """Read `ids` [n >= 0] on from the place of a personal session: where that led, scored, and what comes next.

    Scores are of the vocabulary's words, `<unk>` standing for all others. What comes next has the user's own words
    beside it, and for `<unk>` what they leave.
    """
    memory = cursor.memory
    assert memory is not None
    began, parts = cursor.position, []
    pieces = [ids[at : at + PIECE] for at in range(0, len(ids), PIECE)] or [ids]
    for piece in pieces:
        result = await reader.read_seen(cursor.state, piece, rows=True)
        learnt = memory.learn(_vectors(result)[:-1], piece, cursor.position)
        work = _scoring(Recall(learnt, adaptation, reader.vocabulary.unk_id), len(memory.words), result, piece)
        parts.append(work() if len(piece) <= FEW else await asyncio.to_thread(work))
        cursor = await after(reader, cursor, piece, [result.state])
        memory = learnt.cut(adaptation.window)
    memory = memory.note(own, began).cut(adaptation.window)
    scores = Scores(
        np.concatenate([part.log_probabilities for part in parts]), np.concatenate([part.ranks for part in parts])
    )
    assert result.rows is not None
    recall = Recall(memory, adaptation, reader.vocabulary.unk_id)
    likely, words = recall.suggested(_vectors(result)[-1], result.rows[-1])
    place = Place(cursor.state, likely, written_before(cursor, reader.vocabulary.unk_id), words, recall.suggested)
    return Step(replace(cursor, memory=memory), scores, likely), place


def recalled(reader: Reader, cursor: Cursor, adaptation: Adaptation) -> Adapt:
    """What makes of a state [S], and of the model's log-probabilities [V] after it, those of the session."""
    if cursor.memory is None:
        return lambda _, likely: likely
    recall = Recall(cursor.memory, adaptation, reader.vocabulary.unk_id)
    return lambda state, likely: recall.mixed(hidden_of(state, reader.hidden_size), likely)


def _scoring(recall: Recall, known: int, result: Result, ids: Ids) -> Callable[[], Scores]:
    """What scores `ids` [n], the first of which follows `known` remembered tokens."""

    def work() -> Scores:
        assert result.rows is not None
        vectors = _vectors(result)
        values, ranks = np.empty(len(ids), np.float32), np.empty(len(ids), np.int32)
        for place, token_id in enumerate(ids.tolist()):
            likely = recall.mixed(vectors[place], result.rows[place], known + place)
            values[place], ranks[place] = likely[token_id], rank(likely, token_id)
        return Scores(values, ranks)

    return work


def _vectors(result: Result) -> Floats:
    assert result.vectors is not None
    return result.vectors
