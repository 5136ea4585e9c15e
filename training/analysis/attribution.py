"""What a model predicts after a sequence, and the gradients of those predictions at every word it read.

Boundary: ids in, predictions and gradients out. What is made of them is `saliency` and `coverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.language_model import LanguageModel

TOP = 5
"""Predicted words that are kept."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """A sequence of n words, and what a model makes of it."""

    ids: Sequence[int]
    top: Sequence[int]
    """The most probable next words, at most `TOP`, likeliest first."""
    probabilities: Sequence[float]
    """Theirs."""
    gradients_of_top: Tensor
    """Gradient of ln p of each of `top` at the embedded words, `[top, n, E]`."""

    @property
    def gradients(self) -> Tensor:
        """That of the likeliest, `[n, E]`."""
        return self.gradients_of_top[0]


def attribute(model: LanguageModel, ids: Sequence[int], eos_id: int) -> Attribution:
    """Read the initial `<eos>` and then `ids`, and differentiate each of the likeliest next words.

    Each in its turn is taken for the true one, as the caption of Table 2 says of the first. The initial `<eos>` has a
    gradient too, which is left out: it is no word of the sequence. The model must be evaluating, so that nothing is
    dropped. What is returned lies on the CPU.
    """
    read = torch.tensor([[eos_id, *ids]], device=model.decoder.bias.device)
    embedded = model.embedding(read).detach().requires_grad_()
    hidden, _ = model.layers(embedded, model.initial_state(1))
    log_probabilities = model.log_probabilities(hidden[0, -1])
    top = log_probabilities.detach().topk(min(TOP, len(log_probabilities)))
    gradients = [
        torch.autograd.grad(log_probabilities[index], embedded, retain_graph=True)[0][0, 1:] for index in top.indices
    ]
    return Attribution(ids, top.indices.tolist(), top.values.exp().tolist(), torch.stack(gradients).cpu())
