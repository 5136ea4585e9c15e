"""Typed text in a session, personal or not: read from the start, or on from a place, with what an answer says of it.

Boundary: a place and a text's tokens in, a place and an answer's fields out. The arithmetic is `app.sessions.cursor`'s
and `app.sessions.adapting`'s. What is made for each token of a long text is made beside the event loop.
"""

from __future__ import annotations

from typing import Any

from app.models.running import RunningModel
from app.personal import NO_WORDS, Adaptation
from app.reader import Reader, aside
from app.scored_text import ScoredText
from app.session_schemas import AppendRequest, CreateRequest
from app.sessions import adapting, cursor
from app.sessions.cursor import Cursor
from app.sessions.memory import OwnWord, own_words_of
from model.vocabulary import Tokens


async def begin(reader: Reader, request: CreateRequest, tokens: Tokens, adaptation: Adaptation) -> Cursor:
    """The place after a session's first text."""
    if request.personal:
        return await adapting.start(reader, tokens.ids, await _own(request.text, tokens), adaptation)
    return await cursor.from_start(reader, tokens.ids)


async def read_on(
    model: RunningModel, place: Cursor, request: AppendRequest, tokens: Tokens, adaptation: Adaptation
) -> tuple[Cursor, dict[str, Any]]:
    """The place after more text; how likely each token was there, and what may come next."""
    reader, own = model.service.reader, NO_WORDS
    if place.memory is None:
        step = await cursor.read_on(reader, place, tokens.ids)
    else:
        typed = await _own(request.text, tokens)
        step, own = await adapting.read_on(reader, place, tokens.ids, typed, adaptation)
    assert step.likely is not None
    predictions = model.service.suggestions.best(step.likely, request, own)
    scored = ScoredText(request.text, tokens, step.scores)
    read = await aside(len(tokens), lambda: list(scored.token_scores(reader.vocabulary)))
    return step.cursor, {"tokens": read, "predictions": predictions}


async def _own(text: str, tokens: Tokens) -> list[OwnWord]:
    return await aside(len(tokens), lambda: own_words_of(text, tokens))
