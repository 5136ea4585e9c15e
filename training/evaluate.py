"""Static evaluation: how well a model predicts a text it does not adapt to.

Boundary: ids in, sums of negative log-likelihoods out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.batching import as_rows, context_and_targets, segments

STEPS = 256
"""Steps a chunk: 256 rows of 33,278 float32 logits are 34 MB."""


@dataclass(frozen=True)
class Evaluation:
    """Sum of the negative log-likelihood, in nats, over `tokens` targets."""

    negative_log_likelihood: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood."""
        return math.exp(self.negative_log_likelihood / self.tokens)


@torch.inference_mode()
def evaluate(
    model: LanguageModel, ids: Ids, eos_id: int, streams: int = 1, advance: Callable[[int], None] = lambda _: None
) -> Evaluation:
    """Score every token of `ids`, state carried from the initial `<eos>` to the end.

    `streams` above 1 cuts the text into that many pieces that are read side by side: much faster, and slightly
    pessimistic, since each piece's first words lack their context. `advance` is told of every batch of tokens done.
    """
    was_training = model.training
    model.eval()
    rows = as_rows(context_and_targets(ids, eos_id), streams)
    state = model.initial_state(streams)
    total = torch.zeros((), dtype=torch.float64)
    for inputs, targets in segments(rows, max(1, STEPS // streams)):
        hidden, state = model(inputs, state)
        logits = model.decoder(hidden, model.embedding.weight).flatten(0, 1)
        total += F.cross_entropy(logits, targets.flatten(), reduction="none").double().sum()
        advance(targets.numel())
    model.train(was_training)
    return Evaluation(total.item(), rows[:, 1:].numel())
