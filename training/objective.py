"""What an update minimises: the cross entropy of the next words, and the regularisers that a recipe adds to it.

Boundary: one batch of inputs and targets and the state before it in; the objective, the cross entropy alone and the
state after it out. The optimiser is `training.trainer`'s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.language_model import LanguageModel
from training.likelihood import mean_loss, mean_of_chunks
from training.recipe import Recipe


class Outcome(NamedTuple):
    """`objective` to differentiate; `loss`, the mean cross entropy in nats a token; the state after the batch."""

    objective: Tensor
    loss: Tensor
    state: Tensor


class Objective(nn.Module):
    """A model with what its training adds: regularisers, and the parameters that those have of their own.

    With `bfloat16`, products run in it.
    """

    def __init__(self, model: LanguageModel, recipe: Recipe, *, bfloat16: bool) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.in_bfloat16 = bfloat16
        self.past_decoder = PastDecoder(model.config) if recipe.past_decode else None

    def forward(self, inputs: Tensor, targets: Tensor, state: Tensor) -> Outcome:
        """Read `inputs [B, T]` from `state [B, S]` and compare with `targets [B, T]`."""
        recipe, model = self.recipe, self.model
        lower = torch.bfloat16 if self.in_bfloat16 else model.embedding.weight.dtype
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            raw, state = model.read(inputs, state)
        output = model.drop_output(raw)
        loss = mean_loss(model, output.flatten(0, 1).to(lower), targets.flatten())
        objective = loss
        if recipe.activation:
            objective = objective + recipe.activation * output.float().square().mean()
        if recipe.temporal and raw.shape[1] > 1:
            objective = objective + recipe.temporal * raw.float().diff(dim=1).square().mean()
        if self.past_decoder is not None:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.in_bfloat16):
                past = self.past_decoder(model, output, inputs)
            objective = objective + recipe.past_decode * past
        return Outcome(objective, loss.detach(), state)


class PastDecoder(nn.Module):
    """Past-decode regularisation: from the predicted distribution, tell the word before it (Brahma 2019, section 3).

    Only training has its parameters; a checkpoint does not hold them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.map = nn.Linear(config.embedding_size, config.embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))

    def forward(self, model: LanguageModel, output: Tensor, inputs: Tensor) -> Tensor:
        """Mean cross entropy of the words read, `inputs [B, T]`, given the predictions made from `output [B, T, E]`."""
        return mean_of_chunks(self._sum_of_losses, model, output.flatten(0, 1), inputs.flatten())

    def _sum_of_losses(self, model: LanguageModel, hidden: Tensor, words: Tensor) -> Tensor:
        weight = model.embedding.weight
        expected = model.log_probabilities(hidden).exp() @ weight
        logits = F.linear(torch.tanh(self.map(expected)), weight, self.bias)
        return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), words, reduction="sum")
