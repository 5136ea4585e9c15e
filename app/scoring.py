"""Reading and scoring token ids with an engine: how a text is fed to the model, and the figures that come of it.

Boundary: ids and arrays; knows nothing of text, HTTP or asyncio. A context starts from a row of zeros that reads
`<eos>`; every token is scored from the hidden vector before it. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from app.engines.base import Engine

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

CHUNK_TOKENS = 1024
"""Tokens read in one call of the engine: bounds the memory of hidden vectors and the time until a job can stop."""
CHUNK_ROWS = 32
"""Texts read side by side."""


@dataclass(frozen=True)
class Scores:
    """Log-probability (natural, float32 [n]) and rank (int32 [n]; 1 is best) of each token of a sequence."""

    log_probabilities: Floats
    ranks: Ids


@dataclass(frozen=True)
class Likelihood:
    """Figures of some scored tokens. A perplexity is None where there is no token."""

    log_likelihood: float
    token_count: int
    oov_count: int
    known_log_likelihood: float

    @property
    def perplexity(self) -> float | None:
        """Of all tokens."""
        return perplexity(self.log_likelihood, self.token_count)

    @property
    def perplexity_without_oov(self) -> float | None:
        """Of the tokens in the vocabulary."""
        return perplexity(self.known_log_likelihood, self.token_count - self.oov_count)


def likelihood(log_probabilities: Floats, unknown: npt.NDArray[np.bool_]) -> Likelihood:
    """Sum up tokens (both [n]); `unknown` marks those that are not in the vocabulary."""
    exact = log_probabilities.astype(np.float64)
    return Likelihood(
        log_likelihood=float(exact.sum()),
        token_count=len(exact),
        oov_count=int(unknown.sum()),
        known_log_likelihood=float(exact[~unknown].sum()),
    )


def total(parts: Sequence[Likelihood]) -> Likelihood:
    """The figures of several texts taken together."""
    return Likelihood(
        log_likelihood=math.fsum(part.log_likelihood for part in parts),
        token_count=sum(part.token_count for part in parts),
        oov_count=sum(part.oov_count for part in parts),
        known_log_likelihood=math.fsum(part.known_log_likelihood for part in parts),
    )


def perplexity(log_likelihood: float, count: int) -> float | None:
    """exp(mean negative log-likelihood); None without a token, infinity beyond float64."""
    if count == 0:
        return None
    try:
        return math.exp(-log_likelihood / count)
    except OverflowError:
        return math.inf


def bits(log_probability: float) -> float:
    """Surprisal of a natural log-probability."""
    return -log_probability / math.log(2)


def no_check() -> None:
    """Never stop early."""


def best(log_probabilities: Floats, candidates: Ids, k: int) -> tuple[Ids, Floats]:
    """The `k` likeliest of `candidates` (ascending ids) by `log_probabilities` [V], best first, ties by lower id."""
    values = log_probabilities[candidates]
    if len(values) > k:
        least = np.partition(values, -k)[-k]
        candidates, values = candidates[values >= least], values[values >= least]
    order = np.argsort(-values, kind="stable")[:k]
    return candidates[order], values[order]


def read(engine: Engine, ids: Ids, check: Callable[[], None] = no_check) -> tuple[Floats, Floats]:
    """Read `ids` [n >= 1] from zeros: the last hidden vector [1, E] and the state [1, S] after it.

    `check` is called between chunks and raises to stop.
    """
    state: Floats = np.zeros((1, engine.state_size), np.float32)
    for start in range(0, len(ids), CHUNK_TOKENS):
        check()
        chunk = ids[None, start : start + CHUNK_TOKENS]
        hidden, state = engine.advance(chunk, np.array([chunk.shape[1]], np.int32), state)
    return hidden[:, -1], state


def score(engine: Engine, context: Ids, sequences: Sequence[Ids], check: Callable[[], None] = no_check) -> list[Scores]:
    """Score every token of each sequence, each after the same `context` [n >= 1], which is read once.

    Sequences of like length are read side by side, in chunks of bounded size; an empty one gives empty scores.
    """
    hidden, state = read(engine, context, check)
    results = [Scores(np.empty(len(ids), np.float32), np.empty(len(ids), np.int32)) for ids in sequences]
    _score_first(engine, hidden, sequences, results)
    longest_first = sorted((i for i, ids in enumerate(sequences) if len(ids) > 1), key=lambda i: -len(sequences[i]))
    for start in range(0, len(longest_first), CHUNK_ROWS):
        rows = longest_first[start : start + CHUNK_ROWS]
        _score_rest(engine, state, [sequences[i] for i in rows], [results[i] for i in rows], check)
    return results


def _score_first(engine: Engine, hidden: Floats, sequences: Sequence[Ids], results: Sequence[Scores]) -> None:
    """Score each sequence's first token: all follow the same hidden vector [1, E], so one softmax serves all."""
    filled = [i for i, ids in enumerate(sequences) if len(ids)]
    if not filled:
        return
    likely = engine.log_probabilities(hidden)[0]
    ascending = np.sort(likely)
    for i in filled:
        value = likely[sequences[i][0]]
        results[i].log_probabilities[0] = value
        results[i].ranks[0] = 1 + len(ascending) - np.searchsorted(ascending, value, side="right")


def _score_rest(
    engine: Engine, state: Floats, sequences: Sequence[Ids], results: Sequence[Scores], check: Callable[[], None]
) -> None:
    """Score tokens 1.. of sequences sorted by falling length, from the one `state` [1, S] before their first token."""
    remaining = np.array([len(ids) - 1 for ids in sequences])
    states = np.repeat(state, len(sequences), axis=0)
    position = 0
    while rows := int((remaining > 0).sum()):
        check()
        lengths = np.minimum(remaining[:rows], CHUNK_TOKENS // rows).astype(np.int32)
        width = int(lengths[0])
        ids = np.zeros((rows, width), np.int32)
        for row, length in enumerate(lengths):
            ids[row, :length] = sequences[row][position : position + length]
        hidden, states = engine.advance(ids, lengths, states[:rows])
        targets = [sequences[row][position + 1 : position + 1 + length] for row, length in enumerate(lengths)]
        read_to = np.arange(width) < lengths[:, None]
        values, ranks = engine.score(hidden[read_to], np.concatenate(targets))
        for row, end in enumerate(np.cumsum(lengths)):
            place = slice(position + 1, position + 1 + lengths[row])
            results[row].log_probabilities[place] = values[end - lengths[row] : end]
            results[row].ranks[place] = ranks[end - lengths[row] : end]
        position += width
        remaining = remaining - width
