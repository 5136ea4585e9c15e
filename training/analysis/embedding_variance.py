"""Variance of word embeddings by part of speech, at every level of the pyramid (Figure 4).

Boundary: a model and ids by category in, variances out. Which words are of which category is `tagged_words`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.language_model import LanguageModel
from model.pru import PRULayer
from model.transforms import PyramidalTransform


class Variance(NamedTuple):
    """How far the embeddings of `words` words lie from their mean, at one level of the pyramid."""

    category: str
    level: int
    """1 is the embedding itself."""
    words: int
    variance: float
    """Mean squared Euclidean distance to the mean."""


@torch.no_grad()
def embedding_variances(model: LanguageModel, words: Mapping[str, Sequence[int]]) -> list[Variance]:
    """The variance of every category that has words, at every level that the model's first layer sees.

    A model without a pyramid, an LSTM for one, has the one level.
    """
    return [
        Variance(category, level, len(ids), variance(view))
        for category, ids in words.items()
        if ids
        for level, view in enumerate(_views(model, torch.tensor(ids, device=model.decoder.bias.device)), start=1)
    ]


def variance(vectors: Tensor) -> float:
    """Mean squared Euclidean distance of `vectors [n, d]` to their mean, as the caption of Figure 4 defines it."""
    exact = vectors.double()
    return (exact - exact.mean(0)).square().sum(-1).mean().item()


def _views(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The embeddings `[n, E]` as each level of the first layer's input sees them."""
    embedded = model.embedding(ids)
    first = model.layers[0]
    if isinstance(first, PRULayer) and isinstance(first.input, PyramidalTransform):
        return first.input.pyramid(embedded)
    return [embedded]
