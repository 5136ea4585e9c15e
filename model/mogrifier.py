"""Mogrifier gating: before a step, input and context gate each other in turn (Melis, Kočiský and Blunsom, ICLR 2020).

Boundary: the input and context of one step in, both gated out. It couples all groups of a context, so a model that has
it is read step by step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.transforms import uniform


class Mogrifier(nn.Module):
    """Equations 1 and 2: `x <- 2 sigmoid(Q h) x` in odd rounds and `h <- 2 sigmoid(R x) h` in even ones.

    A matrix of rank r is the product of two (section 2.2); at first its gates are near 1.
    """

    def __init__(self, inputs: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.rounds = nn.ModuleList(
            _Gate(outputs, inputs, config.mogrifier_rank)
            if i % 2 == 0
            else _Gate(inputs, outputs, config.mogrifier_rank)
            for i in range(config.mogrifier_rounds)
        )

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Gate `x [B, N]` and `h [B, M]`."""
        for i, gate in enumerate(self.rounds):
            if i % 2 == 1:
                h = gate(x) * h
            else:
                x = gate(h) * x
        return x, h


class _Gate(nn.Module):
    """`2 sigmoid(W x)`, `[B, n]` to `[B, m]`; with a rank, W is `left @ right`."""

    def __init__(self, inputs: int, outputs: int, rank: int | None) -> None:
        super().__init__()
        if rank is None:
            self.weight = uniform(outputs, inputs, fan_in=inputs)
        else:
            self.left = uniform(outputs, rank, fan_in=rank)
            self.right = uniform(rank, inputs, fan_in=inputs)
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight.t() if self.rank is None else x @ self.right.t() @ self.left.t()
        return 2 * torch.sigmoid(y)
