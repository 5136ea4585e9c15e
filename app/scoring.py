"""Figures of scored tokens: sums, perplexity, surprisal, and the best of some candidates.

Boundary: arrays and numbers. How tokens come to be scored is `app.reading`. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.ranking import top_k

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Log-probability (natural, float32 [n]) and rank (int32 [n]; 1 is best) of each token of a sequence; where asked
    for, the entropy (nats, float32 [n]) of what the model expected in each one's place.
    """

    log_probabilities: Floats
    ranks: Ids
    entropies: Floats | None = None


@dataclass(frozen=True)
class Likeliest:
    """The k words likeliest at each place of a sequence, best first: their ids and log-probabilities, both [n, k]."""

    ids: Ids
    log_probabilities: Floats


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

    def score(self, oov_penalty: float) -> float:
        """What texts are ranked by: the log-likelihood less a penalty, in nats, for each token outside the vocabulary.

        All words outside it share one probability, so each of them seems likelier than it is; the penalty stands for
        what its spelling would cost.
        """
        return self.log_likelihood - oov_penalty * self.oov_count


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


def entropy(log_probabilities: Floats) -> float:
    """Entropy, in nats, of a distribution over all V words: the mean surprisal that the next one will have."""
    return -float((np.exp(log_probabilities) * log_probabilities).sum(dtype=np.float64))


def best(log_probabilities: Floats, candidates: Ids, k: int) -> tuple[Ids, Floats]:
    """The `k` likeliest of `candidates` (ascending ids) by `log_probabilities` [V], best first, ties by lower id."""
    if not len(candidates):
        return candidates, log_probabilities[candidates]
    places, values = top_k(log_probabilities[candidates], k)
    return candidates[places], values
