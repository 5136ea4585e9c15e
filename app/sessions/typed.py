"""Typed text in a session, personal or not: read from the start, or on from a place, with what an answer says of it.

Boundary: a place and a text's tokens in, a place and an answer's fields out. The arithmetic is `app.sessions.cursor`'s
and `app.sessions.adapting`'s. What is made for each token of a long text is made beside the event loop.
"""

from __future__ import annotations

from typing import Any

from app.admission import Claim
from app.models.running import RunningModel
from app.personal import Adaptation
from app.reader import Reader, aside
from app.scored_text import ScoredText
from app.session_schemas import AppendRequest, CreateRequest
from app.sessions import adapting, cursor
from app.sessions.cursor import Cursor
from app.sessions.memory import OwnWord, own_words_of
from app.suggestions import Place
from model.vocabulary import Tokens


async def begin(reader: Reader, request: CreateRequest, tokens: Tokens, adaptation: Adaptation) -> Cursor:
    """The place after a session's first text."""
    if request.personal:
        return await adapting.start(reader, tokens.ids, await _own(request.text, tokens), adaptation)
    return await cursor.from_start(reader, tokens.ids)


async def read_on(
    model: RunningModel,
    began: Cursor,
    request: AppendRequest,
    tokens: Tokens,
    claim: Claim,
    adaptation: Adaptation,
) -> tuple[Cursor, dict[str, Any]]:
    """The place after more text; how likely each token was there, and what may come next.

    `claim` is told of tokens that are read besides, to look ahead.
    """
    reader = model.service.reader
    if began.memory is None:
        step = await cursor.read_on(reader, began, tokens.ids)
        assert step.likely is not None
        place = Place(step.cursor.state, step.likely, cursor.written_before(step.cursor, reader.vocabulary.unk_id))
    else:
        typed = await _own(request.text, tokens)
        step, place = await adapting.read_on(reader, began, tokens.ids, typed, adaptation)
    predictions = await model.service.suggestions.after(reader, place, request, claim)
    scored = ScoredText(request.text, tokens, step.scores)
    read = await aside(len(tokens), lambda: list(scored.token_scores(reader.vocabulary)))
    return step.cursor, {"tokens": read, "predictions": predictions}


async def _own(text: str, tokens: Tokens) -> list[OwnWord]:
    return await aside(len(tokens), lambda: own_words_of(text, tokens))
