"""How a model is trained, as plain, validated data, and the optimiser and learning rates that follow from it.

Boundary: settings and schedules. The loop that uses them is `training.trainer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from model.dropout import Dropout


class Optimizer(StrEnum):
    """Optimiser and the schedule that belongs to it."""

    ADAM = "adam"
    """Adam, one cycle: a linear rise over `warmup` of all steps from a tenth of the rate, a constant rate, and over the
    last `decay` of them a straight line down to 1% of it."""
    ADAMW = "adamw"
    """AdamW, one cycle: a linear rise over `warmup` of all steps, then half a cosine down to 1% of the rate."""
    SGD = "sgd"
    """Plain SGD: a constant rate for `1 - decay` of all steps, then a straight line down to 2% of it."""
    NT_ASGD = "nt-asgd"
    """SGD at a constant rate; once validation stops improving, the mean of all weights from there on is what counts."""
    ASGD = "asgd"
    """The mean of all weights from the first step on, until validation stops improving: AWD's finetuning."""

    @property
    def averages(self) -> bool:
        """Whether the weights that count are, at some time, a mean."""
        return self in (Optimizer.NT_ASGD, Optimizer.ASGD)


Beta = Annotated[float, Field(ge=0, lt=1)]
"""How much of a running mean stays at each update."""


class Recipe(BaseModel):
    """Everything that decides a training run besides the architecture, the data and the seed."""

    # A record of the run is JSON, which has neither infinity nor NaN.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Optimizer
    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    bptt: int = Field(ge=1)
    """Steps that a gradient reaches back; state is carried beyond."""
    variable_bptt: bool = False
    """Vary the steps of each update around `bptt`, and its rate in proportion (Merity et al. 2018, section 5)."""
    partial_shuffle: bool = False
    """Begin each row of the batch at another place of its text in every epoch (Press 2019)."""
    dropout: Dropout = Dropout()
    activation: float = Field(default=0.0, ge=0)
    """Weight of activation regularisation: alpha of AR, on the output after its dropout (Merity et al. 2017)."""
    temporal: float = Field(default=0.0, ge=0)
    """Weight of temporal activation regularisation: beta of TAR, on the output before its dropout."""
    past_decode: float = Field(default=0.0, ge=0)
    """Weight of past-decode regularisation (Brahma 2019)."""
    clip: float = Field(gt=0)
    """Largest norm of the gradient of all parameters together."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW takes this share, times the rate, from every weight at each update. All others add the weight times it to
    the clipped gradient, which Adam scales up as it does the rest: 1e-6 is much for Adam, and nothing for AdamW."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    warmup: float = Field(default=0.25, gt=0, lt=1)
    decay: float = Field(default=0.6, gt=0, le=1)
    patience: int = Field(default=5, ge=1)
    """Latest epochs left out when a mean asks whether validation still improves: n of NT-ASGD."""
    bfloat16: bool = True
    """Products in bfloat16 where the device has instructions for it; parameters, state and optimiser stay float32."""


def build_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. Means of weights are `training.averaging`'s: here they are plain SGD.

    On a GPU its rate is a tensor, which a captured update reads anew each time.
    """
    parameters = list(parameters)
    on_gpu = parameters[0].is_cuda
    rate = torch.tensor(recipe.learning_rate, device=parameters[0].device) if on_gpu else recipe.learning_rate
    if recipe.optimizer in (Optimizer.ADAM, Optimizer.ADAMW):
        kind = torch.optim.Adam if recipe.optimizer is Optimizer.ADAM else torch.optim.AdamW
        return kind(
            parameters, lr=rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True, capturable=on_gpu
        )
    return torch.optim.SGD(parameters, lr=rate, weight_decay=recipe.weight_decay, fused=True)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Learning rate of update `step` (from 0) of `total`."""
    done = step / total
    match recipe.optimizer:
        case Optimizer.SGD:
            return recipe.learning_rate * (1 - 0.98 * _fallen(recipe, done))
        case Optimizer.ADAM:
            if done < recipe.warmup:
                return recipe.learning_rate * (0.1 + 0.9 * done / recipe.warmup)
            return recipe.learning_rate * (1 - 0.99 * _fallen(recipe, done))
        case Optimizer.ADAMW:
            if done < recipe.warmup:
                # One step in: the first update of all would otherwise have a rate of 0.
                return recipe.learning_rate * (step + 1) / (recipe.warmup * total + 1)
            falling = (done - recipe.warmup) / (1 - recipe.warmup)
            return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))
        case _:
            return recipe.learning_rate


def _fallen(recipe: Recipe, done: float) -> float:
    """Share of the straight line down that is behind, when `done` of all steps are."""
    return max(0.0, 1 - (1 - done) / recipe.decay)
