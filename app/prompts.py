"""Prompts of a completion: text as ids, ids as text, and where in the text each token stands.

Boundary: the request's field in, tokens within the limits out; `FieldError` for what the vocabulary or the limits do
not allow. What follows a prompt is `app.completions`' business.

A prompt of text is what `POST /tokenize` makes of it, read after an initial `<eos>` that is no part of it; so its first
token is predicted. A prompt of ids is read literally, from the state before any token; so its first id is not
predicted, and clients begin with the id of `<eos>`. The text "a b" and the ids [eos, a, b] are read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import numpy as np

from app.errors import FieldError
from app.reader import Reader, aside
from app.scoring import Ids
from model.spelling import written
from model.vocabulary import Vocabulary

Given = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | None


@dataclass(frozen=True)
class Prompt:
    """One prompt of n tokens: its ids [n], its text, and at which code point of that each token begins [n]."""

    ids: Ids
    text: str
    starts: list[int]
    literal: bool
    """Whether it was given as ids."""


def separate(given: Given) -> list[tuple[tuple[str | int, ...], str | Sequence[int]]]:
    """Each prompt of the field in any of its forms, with the path that leads to it."""
    if given is None or isinstance(given, str):
        return [(("prompt",), given or "")]
    if isinstance(given[0], int):
        return [(("prompt",), cast(Sequence[int], given))]
    return [(("prompt", index), prompt) for index, prompt in enumerate(cast(Sequence[str | Sequence[int]], given))]


async def read_prompt(
    reader: Reader, path: tuple[str | int, ...], given: str | Sequence[int], before: int, *, spelt: bool
) -> Prompt:
    """One prompt; `FieldError` where it and the `before` tokens are too many, or an id is none of the vocabulary.

    The text of ids is only made where it is to be `spelt`.
    """
    if isinstance(given, str):
        tokens = await reader.tokenise(path, given, before, goes_on=True, specials=True)
        return Prompt(tokens.ids, given, tokens.starts.tolist(), literal=False)
    ids = as_ids(reader, path, given, before)
    text, starts = await aside(len(ids), lambda: spelling(reader.vocabulary, ids)) if spelt else ("", [])
    return Prompt(ids, text, starts, literal=True)


def as_ids(reader: Reader, path: tuple[str | int, ...], given: Sequence[int], before: int = 0) -> Ids:
    """Ids [n], none negative, as the model reads them.

    Raises `FieldError` where they and the `before` tokens are too many, or for the first that is no word's.
    """
    most, size = reader.limits.tokens, len(reader.vocabulary)
    if before + len(given) > most:
        raise FieldError(path, f"the request has more than {most} tokens up to and with these ids; send fewer")
    ids = np.array(given, np.int32)
    if len(strange := np.flatnonzero(ids >= size)):
        first = int(strange[0])
        raise FieldError((*path, first), f"{ids[first]} is no id of the model's, which are 0 to {size - 1}")
    return ids


def spelling(vocabulary: Vocabulary, ids: Ids) -> tuple[str, list[int]]:
    """`Vocabulary.detokenise(ids)` for ids [n], and the code point at which each token begins [n], after its blank."""
    pieces = list(written(map(vocabulary.word_of, ids.tolist()), vocabulary.convention))
    ends = accumulate(map(len, pieces))
    return "".join(pieces), [end - len(piece.lstrip(" ")) for end, piece in zip(ends, pieces, strict=True)]
