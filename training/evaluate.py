"""Static evaluation: how well a model predicts a text it does not adapt to.

Boundary: ids in, sums of negative log-likelihoods out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.batching import as_rows, context_and_targets, segments
from training.cross_entropy import negative_log_likelihoods

TOKENS = 2048
"""Tokens a chunk, all streams together."""


@dataclass(frozen=True)
class Evaluation:
    """Sum of the negative log-likelihood, in nats, over `tokens` targets."""

    negative_log_likelihood: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood, which is at most 87.5."""
        return math.exp(self.negative_log_likelihood / self.tokens)


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    ids: Ids,
    eos_id: int,
    *,
    streams: int = 1,
    bfloat16: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Score every token of `ids`, state carried from the initial `<eos>` to the end.

    `streams` above 1 cuts the text into that many pieces that are read side by side, and `bfloat16` rounds the
    products: much faster, and for watching a run rather than for reporting, since each piece's first words lack their
    context. `advance` is told of every batch of tokens done.
    """
    was_training = model.training
    model.eval()
    rows = as_rows(context_and_targets(ids, eos_id), streams)
    state = model.initial_state(streams)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    weight, bias = model.embedding.weight.to(dtype), model.decoder.bias.to(dtype)
    total = torch.zeros((), dtype=torch.float64)
    for inputs, targets in segments(rows, max(1, TOKENS // streams)):
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
            hidden, state = model(inputs, state)
        scores = negative_log_likelihoods(hidden.flatten(0, 1).to(dtype), weight, bias, targets.flatten())
        total += scores.double().sum()
        advance(targets.numel())
    model.train(was_training)
    return Evaluation(total.item(), rows[:, 1:].numel())
