"""Confidence of a model: entropies of its next-word distributions over a text, and their histogram (Figure 3).

Boundary: ids in, entropies and counts out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.evaluate import read_chunks

BIN = 0.23
"""Width of a bin in nats, the paper's; bin i holds entropies from `i * BIN` up to `(i + 1) * BIN`."""
CONTEXTS = 64
"""Contexts at a time, so that memory is bounded: a distribution is as long as the vocabulary."""


@torch.no_grad()
def next_word_entropies(
    model: LanguageModel, ids: Ids, eos_id: int, *, advance: Callable[[int], None] = lambda _: None
) -> npt.NDArray[np.float64]:
    """Entropy in nats of what the model expects in the place of each of `ids`, state carried from the initial `<eos>`.

    `advance` is told of every batch of contexts done. Raises `CorpusError` where there are no ids.
    """
    # One array from the start: thousands of small ones, made between large ones, would keep the latters' memory in use.
    entropies, done = np.empty(len(ids)), 0
    for hidden, _ in read_chunks(model, ids, eos_id, CONTEXTS):
        log_probabilities = model.log_probabilities(hidden)
        entropies[done : done + len(hidden)] = -(log_probabilities.exp() * log_probabilities).sum(-1).cpu().numpy()
        done += len(hidden)
        advance(len(hidden))
    return entropies


def histogram(entropies: npt.NDArray[np.float64], vocabulary_size: int) -> npt.NDArray[np.int64]:
    """Number of entropies in each bin, from 0 to the entropy of the uniform distribution.

    What rounding put beyond either end counts in the bin at that end.
    """
    last = math.floor(math.log(vocabulary_size) / BIN)
    bins = np.clip(np.floor(entropies / BIN), 0, last).astype(np.int64)
    return np.bincount(bins, minlength=last + 1)
