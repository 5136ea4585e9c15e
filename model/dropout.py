"""What a language model leaves out at random while it trains: rates, and the masks they make.

Boundary: tensors in, tensors out; where they are applied is the business of `model.pru` and `model.language_model`.
Nothing here is part of the architecture: a model evaluates the same whatever its rates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Dropout(BaseModel):
    """Rates, each at least 0 and below 1, named by what is dropped (Merity et al. 2018, section 4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: float = Field(default=0.0, ge=0, lt=1)
    """Words of the table: every occurrence of a word in a segment goes at once."""
    input: float = Field(default=0.0, ge=0, lt=1)
    """Numbers of embedded words."""
    hidden: float = Field(default=0.0, ge=0, lt=1)
    """Numbers between two layers."""
    output: float = Field(default=0.0, ge=0, lt=1)
    """Numbers of the last layer's output."""
    weight: float = Field(default=0.0, ge=0, lt=1)
    """Weights of the context's matrices, one mask for all steps of a segment."""
    locked: bool = False
    """Whether `input`, `hidden` and `output` drop the same numbers at all steps of a segment."""

    @classmethod
    def standard(cls, rate: float) -> Dropout:
        """The paper's standard dropout: after the embedding, between layers and on the output (section 4.1)."""
        return cls(input=rate, hidden=rate, output=rate)


def drop(x: Tensor, rate: float, *, locked: bool) -> Tensor:
    """Drop numbers of `x [B, T, N]` and scale up the others; `locked` uses one mask `[B, 1, N]` for all steps."""
    if not locked:
        return F.dropout(x, rate)
    # Half precision rounds 1 / (1 - rate), by the same for all numbers: on the whole they would not be what they were.
    mask = F.dropout(x.new_ones(x.shape[0], 1, x.shape[2], dtype=torch.promote_types(x.dtype, torch.float32)), rate)
    return (x * mask).to(x.dtype)


def drop_words(embedded: Tensor, ids: Tensor, vocabulary_size: int, rate: float) -> Tensor:
    """Drop whole words of `embedded [B, T, E]`, those of one id together, and scale up the others."""
    return embedded * F.dropout(embedded.new_ones(vocabulary_size), rate)[ids].unsqueeze(-1)
