"""What a user typed before, made more probable: a neural cache over his tokens, and words that the vocabulary lacks.

Boundary: arrays of one place of a text in, log-probabilities out; NumPy only. What is remembered of a text, and where,
is `app.sessions.memory`.

With lambda the cache's `weight`, a word of the vocabulary has the probability

    p(w) = (1 - lambda) p_model(w) + lambda c(w)

where c(w) is proportional to the sum of exp(theta h_t . h_i) over the remembered places i that w followed (Grave,
Joulin and Usunier, "Improving neural language models with a continuous cache", ICLR 2017, equations 3 and 4). `<unk>`
is one of these words, and stands for every word outside the vocabulary. What it has is shared out among those that were
typed:

    p(v) = lambda c(v) + (1 - lambda) p_model(<unk>) n(v) / (n + d)

where v was typed n(v) times, all such words n times, and d of them are different; c(v) counts the places that v itself
followed. d / (n + d) of the model's part is left to words that are new (Witten and Bell, "The zero-frequency problem",
1991, method C). So all words, those of the user and what is left of `<unk>` together have 1, as without a cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.scoring import Floats, Ids

Doubles = npt.NDArray[np.float64]

TINY = 1e-38
"""Least probability of a word, so that its logarithm is a number."""


@dataclass(frozen=True)
class Adaptation:
    """How much a session follows its user."""

    window: int
    """Tokens that the cache looks back on, 1 or more."""
    weight: float
    """The cache's lambda, from 0 to below 1."""
    theta: float
    """How strongly the cache prefers what followed the most similar hidden vectors; 0 counts words alone."""


@dataclass(frozen=True)
class OwnWords:
    """Different words outside the vocabulary, in the order they were first typed, and the log-probability of each."""

    spellings: Sequence[str]
    log_probabilities: Sequence[float]


NO_WORDS = OwnWords((), ())


def shares(vectors: Floats, query: Floats, theta: float) -> Doubles:
    """What each remembered place has of the cache, [n >= 1] that sum to 1: `vectors` [n, E] against the `query` [E]."""
    scores = theta * (vectors @ query).astype(np.float64)
    weights = np.exp(scores - scores.max())
    share: Doubles = weights / weights.sum()
    return share


def mixed(likely: Floats, words: Ids, share: Doubles, weight: float) -> Floats:
    """Log-probabilities [V] with the cache, where `words` [n] followed the places that `share` [n] it.

    Where nothing is remembered the model's `likely` [V] stand alone.
    """
    if not len(words):
        return likely
    found, places = np.unique(words, return_inverse=True)
    cached = np.bincount(places, share)
    values = likely + np.float32(math.log1p(-weight))
    both = (1 - weight) * np.exp(likely[found].astype(np.float64)) + weight * cached
    values[found] = np.log(np.maximum(both, TINY))
    return values


def own_words(spellings: Sequence[str], cached: Doubles, unknown: float, weight: float) -> OwnWords:
    """What words outside the vocabulary have of `<unk>`.

    `spellings` [n] are all that were typed, `cached` [n] what the cache gives to the place of each, and `unknown` the
    model's log-probability of `<unk>`. Where the cache holds nothing at all, its `weight` is 0.
    """
    index = {spelling: place for place, spelling in enumerate(dict.fromkeys(spellings))}
    which = [index[spelling] for spelling in spellings]
    counted = np.bincount(which) / (len(which) + len(index)) if which else np.empty(0)
    own = weight * np.bincount(which, cached, len(index)) + (1 - weight) * math.exp(unknown) * counted
    return OwnWords(list(index), np.log(np.maximum(own, TINY)).tolist())


def left_of_unknown(unknown: float, own: OwnWords) -> float:
    """The log-probability that `<unk>` keeps, of `unknown`, for words never typed."""
    return math.log(max(math.exp(unknown) - math.fsum(map(math.exp, own.log_probabilities)), TINY))
