"""Dynamic evaluation: the weights follow the text that is read, and are pulled back towards the trained ones.

Boundary: a model and ids in, sums of negative log-likelihoods out. It learns on a copy: the model given stays as it is.

Source: Krause, Kahembwe, Murray and Renals, "Dynamic evaluation of neural sequence models" (ICML 2018), RMS dynamic
evaluation with an RMS global prior. After each segment of `bptt` words is scored, every weight w changes by

    -lr g / (RMS + epsilon) + min(1, lambda RMS / mean RMS) (w_trained - w),

where g is the gradient of the segment's mean loss and RMS the root of the mean square of that weight's gradients over
the training text. As in the authors' program, "mean RMS" is the mean over parameter tensors of their means, and the
statistics come from batches of 100 rows by `bptt` words.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from model.errors import ConfigurationError, TrainingError
from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.batching import as_rows, context_and_targets, fixed_lengths, segments
from training.evaluate import Evaluation, Parameters
from training.likelihood import mean_loss

ROWS = 100
"""Rows that the training text is cut into for the statistics; fewer where it is shorter than that many segments."""


@dataclass(frozen=True)
class DynamicEvaluation:
    """Settings, by default the published ones; `ConfigurationError` for what cannot be. Choose on a validation text."""

    bptt: int = 5
    """Words scored between two updates, which is as far as a gradient reaches back."""
    lr: float = 5e-5
    """Learning rate; 0 keeps the trained weights."""
    lambda_: float = 2e-3
    """Decay towards the trained weights at each update, from 0 (none) to 1."""
    epsilon: float = 2e-5
    """Added to RMS gradients, so that weights that training hardly moved do not jump."""

    def __post_init__(self) -> None:
        if self.bptt < 1:
            raise ConfigurationError(f"dynamic evaluation's bptt must be at least 1 word, not {self.bptt}")
        if not 0 <= self.lr < math.inf:
            raise ConfigurationError(f"dynamic evaluation's lr must be a finite number of at least 0, not {self.lr}")
        if not 0 <= self.lambda_ <= 1:
            raise ConfigurationError(f"dynamic evaluation's lambda must lie between 0 and 1, not {self.lambda_}")
        if not 0 < self.epsilon < math.inf:
            raise ConfigurationError(f"dynamic evaluation's epsilon must be finite and above 0, not {self.epsilon}")

    @property
    def parameters(self) -> Parameters:
        """The settings as a result records them."""
        return {name.rstrip("_"): value for name, value in asdict(self).items()}


def gradient_statistics(
    model: LanguageModel, train: Ids, eos_id: int, bptt: int, *, advance: Callable[[int], None] = lambda _: None
) -> list[Tensor]:
    """RMS of the gradient of each of the model's parameters, in their order and shapes, over the training text."""
    model = _copy(model)
    parameters = list(model.parameters())
    stream = context_and_targets(train, eos_id)
    rows = as_rows(stream, min(ROWS, max(1, len(stream) // (bptt + 1)))).to(model.decoder.bias.device)
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    state, batches = model.initial_state(len(rows)), 0
    for inputs, targets in segments(rows, fixed_lengths(rows.shape[1] - 1, bptt)):
        loss, state = _loss(model, inputs, targets, state)
        for square, gradient in zip(squares, torch.autograd.grad(loss, parameters), strict=True):
            square.addcmul_(gradient, gradient)
        batches += 1
        advance(targets.numel())
    return [square.div_(batches).sqrt_() for square in squares]


def evaluate_dynamically(
    model: LanguageModel,
    ids: Ids,
    eos_id: int,
    statistics: Sequence[Tensor],
    settings: DynamicEvaluation,
    *,
    statistics_of: str,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Score every token of `ids`, each segment before its update, state carried from the initial `<eos>` to the end.

    `statistics` are `gradient_statistics` of the training text, which is called `statistics_of` in the result.
    Raises `TrainingError` where the updates lead to a loss that is not finite.
    """
    trained, model = list(model.parameters()), _copy(model)
    parameters = list(model.parameters())
    mean = sum(rms.mean().item() for rms in statistics) / len(statistics)
    rates = [settings.lr / (rms + settings.epsilon) for rms in statistics]
    # Where no gradient was ever seen there is no mean to divide by, and nothing to pull back.
    decays = [(rms * (settings.lambda_ / mean if mean else 0.0)).clamp_(max=1) for rms in statistics]
    rows = as_rows(context_and_targets(ids, eos_id), 1).to(model.decoder.bias.device)
    state, total, tokens = model.initial_state(1), 0.0, 0
    for inputs, targets in segments(rows, fixed_lengths(rows.shape[1] - 1, settings.bptt)):
        loss, state = _loss(model, inputs, targets, state)
        gradients = torch.autograd.grad(loss, parameters)
        total += loss.item() * targets.numel()
        tokens += targets.numel()
        if not math.isfinite(total):
            raise TrainingError(
                f"dynamic evaluation's loss is {loss.item()} after {tokens} words; lower its lr or raise its epsilon"
            )
        with torch.no_grad():
            for weight, start, gradient, rate, decay in zip(parameters, trained, gradients, rates, decays, strict=True):
                weight.lerp_(start, decay).addcmul_(gradient, rate, value=-1)
        advance(targets.numel())
    return Evaluation(total, tokens, "dynamic", {**settings.parameters, "statistics_of": statistics_of})


def _copy(model: LanguageModel) -> LanguageModel:
    """The same model without dropout, to change and to differentiate."""
    return copy.deepcopy(model).eval().requires_grad_(True)


def _loss(model: LanguageModel, inputs: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of one segment `[B, T]`, in nats a word, and the state after it, which no gradient passes."""
    hidden, state = model(inputs, state)
    loss = mean_loss(model, hidden.flatten(0, 1), targets.flatten())
    return loss, state.detach()
