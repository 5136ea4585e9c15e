"""Texts scored by one engine, many at a time, in batches that the texts alone decide.

Boundary: texts in, figures out, in order; synchronous. The service's scheduler forms its batches by the clock, for
those that wait; here nobody does, and two runs are to give the same bytes on every engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.scoring import Floats, Ids, Likelihood, likelihood
from model.errors import EngineError
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from app.engines.base import Engine

BLOCK_ROWS, BLOCK_CHARACTERS = 1000, 1 << 22
"""Texts among which those of one length find each other, and characters after which a block ends anyway."""
ROWS, STEPS = 32, 256
"""Texts, and steps of each, of one call of the engine: its hidden vectors are `ROWS` x `STEPS` x E floats."""


class Scorer:
    """Scores texts as `POST /perplexity` does, each from a fresh start. Serves one caller at a time."""

    def __init__(self, engine: Engine, vocabulary: Vocabulary, *, include_eos: bool) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._include_eos = include_eos
        eos, one = np.array([[vocabulary.eos_id]], np.int32), np.ones(1, np.int32)
        _, self._root = engine.advance(eos, one, np.zeros((1, engine.state_size), np.float32))

    def score(self, texts: Iterable[str]) -> Iterator[Likelihood]:
        """Figures of each text, in order."""
        for block in _blocks(texts):
            yield from self._score_block(block)

    def _score_block(self, texts: list[str]) -> list[Likelihood]:
        tokens = [self._vocabulary.tokenise(text, final_newline=False) for text in texts]
        ids, unknown = [one.ids for one in tokens], [one.unknown for one in tokens]
        if self._include_eos:
            eos_id = np.int32(self._vocabulary.eos_id)
            ids, unknown = [np.append(one, eos_id) for one in ids], [np.append(one, False) for one in unknown]
        found: list[Floats] = [np.empty(0, np.float32)] * len(texts)
        by_length = sorted((index for index in range(len(ids)) if len(ids[index])), key=lambda index: len(ids[index]))
        for start in range(0, len(by_length), ROWS):
            batch = by_length[start : start + ROWS]
            for index, values in zip(batch, self._score_batch([ids[index] for index in batch]), strict=True):
                found[index] = values
        return [likelihood(values, marks) for values, marks in zip(found, unknown, strict=True)]

    def _score_batch(self, targets: list[Ids]) -> list[Floats]:
        """Log-probabilities of the tokens of some texts, each of which has one. The last of each need not be read."""
        engine, size = self._engine, self._engine.hidden_size
        lengths = np.array([len(one) - 1 for one in targets], np.int32)
        state = np.repeat(self._root, len(targets), axis=0)
        # The first token follows the start, of which the state has the vector: the last layer's h.
        found = [self._values(np.ascontiguousarray(state[:, -2 * size : -size]), [one[:1] for one in targets])]
        for start in range(0, int(lengths.max()), STEPS):
            left = np.clip(lengths - start, 0, STEPS)
            ids = np.zeros((len(targets), int(left.max())), np.int32)
            for row, one in enumerate(targets):
                ids[row, : left[row]] = one[start : start + left[row]]
            hidden, state = engine.advance(ids, left, state)
            # The vector after an id scores the next one.
            inside = np.arange(ids.shape[1]) < left[:, None]
            follow = [one[start + 1 : start + 1 + count] for one, count in zip(targets, left, strict=True)]
            found.append(self._values(hidden[inside], follow))
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _values(self, hidden: Floats, targets: list[Ids]) -> list[Floats]:
        """Log-probabilities of `targets` by the vectors of all of them, one below the other."""
        values, _ = self._engine.score(hidden, np.concatenate(targets))
        if not np.isfinite(values).all():
            raise EngineError("the engine computed NaN or infinity; its artefact or its device is damaged")
        edges: npt.NDArray[np.intp] = np.cumsum([len(one) for one in targets])[:-1]
        return np.split(values, edges)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if len(block) == BLOCK_ROWS or size >= BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block
