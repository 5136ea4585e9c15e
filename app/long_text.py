"""A text of any length, scored as one or line by line: a few lines at a time, each with its place in the text.

Boundary: text in, scored pieces out, awaited one by one, so that they can be written and forgotten. What is shown of
them is `app.score_formats`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from app.model_service import ModelService
from app.reading import no_ids
from app.schemas import WordScore
from app.scored_text import Line, ScoredText
from app.scoring import Ids, Scores, bits
from model.vocabulary import Tokens

PIECE = 1 << 14
"""Characters after which a piece ends with its line."""
CHUNK = 1024
"""Tokens read between two signs of progress."""
TOGETHER = 64
"""Lines that are scored at once where each is a text of its own."""

Advance = Callable[[int], None]
"""Told the characters that were read since it was told last."""


@dataclass(frozen=True)
class PlacedWord:
    """A word as typed and its place in the text: line and position count from 1, its offsets are the whole text's.
    `entropy`, where it was asked for, is in bits, of what was expected in its first token's place.
    """

    line: int
    position: int
    score: WordScore
    entropy: float | None


@dataclass(frozen=True)
class Piece:
    """Whole lines of a text, scored. Before them are `offset` code points, and lines up to the one numbered `line`.

    `newlines` are all words of `Tokens.words` that are one, those of blank lines that were not read among them.
    """

    scored: ScoredText
    offset: int
    line: int
    newlines: Ids

    def words(self) -> Iterator[PlacedWord]:
        """Every word with a score; line ends and the text's end are none. A word of no token has a position too."""
        for index, word in self.scored.words():
            if word.word.strip():
                word.start += self.offset
                word.end += self.offset
                above = self._above(index)
                before = int(self.newlines[above - 1]) + 1 if above else 0
                yield PlacedWord(self.line + above, index - before + 1, word, self._entropy(index))

    def lines(self, eos_id: int) -> Iterator[tuple[int, Line]]:
        """Every line that was scored, with its number."""
        for index, line in self.scored.lines(eos_id):
            yield self.line + self._above(index), line

    def _entropy(self, index: int) -> float | None:
        entropies = self.scored.scores.entropies
        if entropies is None:
            return None
        return bits(-float(entropies[np.searchsorted(self.scored.tokens.words, index)]))

    def _above(self, index: int) -> int:
        """Newlines before a word."""
        return int(np.searchsorted(self.newlines, index))


async def score_text(
    service: ModelService,
    text: str,
    *,
    include_eos: bool,
    blank_lines: bool = False,
    entropies: bool = False,
    advance: Advance = lambda _: None,
) -> AsyncIterator[Piece]:
    """Score a text as `ModelService.score` does, in pieces, each after all that is before it.

    Without `blank_lines` it is as if there were none: to a corpus in which they set headings off they would say that
    one follows, and each would be a token.
    """
    reader = service.reader
    state, line = reader.root, 1
    for start, end in _cuts(text):
        part, is_last = text[start:end], end == len(text)
        if is_last and not blank_lines:
            part = part.rstrip()
        tokens = await reader.tokenise(("text",), part, 0, goes_on=not is_last)
        is_newline = tokens.ids == service.vocabulary.eos_id
        newlines = tokens.words[is_newline]
        if not blank_lines:
            # A line end that nothing of its line is before; a piece begins with a line.
            tokens = _those(tokens, ~(is_newline & np.append(True, is_newline[:-1])[: len(tokens)]))
        if is_last and include_eos:
            tokens = service.with_eos(tokens, len(part))
        scores, told = [], 0
        for first in range(0, len(tokens), CHUNK):
            ids = tokens.ids[first : first + CHUNK]
            result = await reader.read(state, ids, ids, entropy=entropies)
            state = result.state
            scores.append(result.scores)
            upto = int(tokens.ends[first + len(ids) - 1])
            advance(upto - told)
            told = upto
        advance(len(part) - told)
        yield Piece(ScoredText(part, tokens, _joined(scores, entropies)), start, line, newlines)
        line += part.count("\n")


async def score_each_line(
    service: ModelService,
    text: str,
    *,
    include_eos: bool,
    entropies: bool = False,
    advance: Advance = lambda _: None,
) -> AsyncIterator[Piece]:
    """Score every line that is not blank as a text of its own."""
    waiting = _lines(text)
    while lines := list(islice(waiting, TOGETHER)):
        texts = [line for _, _, line in lines]
        paths = [("text",)] * len(texts)
        scored = await service.score(texts, paths, include_eos=include_eos, entropies=entropies)
        for (number, offset, line), one in zip(lines, scored, strict=True):
            advance(len(line))
            yield Piece(one, offset, number, no_ids())


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """Where pieces begin and end: after newlines, and so that the last holds the text's last word and what follows."""
    start, last = 0, len(text.rstrip())
    while (newline := text.find("\n", start + PIECE, last)) >= 0:
        yield start, newline + 1
        start = newline + 1
    yield start, len(text)


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Number, offset and content of every line that is not blank."""
    offset = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, offset, line
        offset += len(line) + 1


def _those(tokens: Tokens, wanted: npt.NDArray[np.bool_]) -> Tokens:
    """Some of the tokens of a text."""
    return Tokens(
        ids=tokens.ids[wanted],
        starts=tokens.starts[wanted],
        ends=tokens.ends[wanted],
        unknown=tokens.unknown[wanted],
        words=tokens.words[wanted],
    )


def _joined(parts: list[Scores], entropies: bool) -> Scores:
    """Scores of one sequence that was read in parts, of which there may be none."""
    return Scores(
        np.concatenate([np.empty(0, np.float32), *(part.log_probabilities for part in parts)]),
        np.concatenate([np.empty(0, np.int32), *(part.ranks for part in parts)]),
        np.concatenate([np.empty(0, np.float32), *(part.entropies for part in parts if part.entropies is not None)])
        if entropies
        else None,
    )
