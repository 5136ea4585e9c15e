"""The three maps from a vector to the four gates: linear (Eq. 1), pyramidal (Eq. 2 and 3) and grouped (Eq. 4).

Boundary: one vector in, four gate pre-activations out. No recurrence, no gating, no state.
Every transform maps `[..., N]` to `[..., 4, M]`, gates in the order of `model.config.GATES`. They keep to the part of
Python that TorchScript knows, for `model.inference`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import AverageKernels, ModelConfig, Subsampling, Transform, level_inputs, level_outputs


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """A parameter drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class LinearTransform(nn.Module):
    """Eq. 1: `y_v = W_v x + b_v` for each gate v."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = uniform(4, outputs, inputs, fan_in=outputs)
        self.bias = uniform(4, outputs, fan_in=outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., N]` to `[..., 4, M]`."""
        # The bias is added where all transforms add theirs: in its own precision, whatever the product's.
        return F.linear(x, self.weight.flatten(0, 1)).view(x.shape[:-1] + self.bias.shape) + self.bias


class GroupedTransform(nn.Module):
    """Eq. 4: x is cut into g groups; group j of every gate sees only group j of x."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = uniform(4, groups, outputs // groups, inputs // groups, fan_in=outputs // groups)
        self.bias = uniform(4, outputs, fan_in=outputs // groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., N]` to `[..., 4, M]`."""
        rows = x.reshape(-1, self.groups, self.weight.shape[3]).transpose(0, 1)
        # The weight is a view here: einsum copies it, which costs more than the product of a few rows.
        grouped = torch.matmul(rows, self.weight.transpose(2, 3)).permute(2, 0, 1, 3)
        return grouped.reshape(x.shape[:-1] + self.bias.shape) + self.bias


class PyramidalTransform(nn.Module):
    """Eq. 2: each level maps a version of x half as long as the level before it; outputs are concatenated."""

    def __init__(self, inputs: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        sizes = zip(
            level_inputs(inputs, config.levels),
            level_outputs(outputs, config.levels, config.split),
            strict=True,
        )
        self.levels = nn.ModuleList(_Level(n, o, fan_in=outputs) for n, o in sizes)
        self.bias = uniform(4, outputs, fan_in=outputs)
        self.subsampling = config.subsampling.value
        # TorchScript cannot tell what an empty list is of.
        self.average_kernels = average_kernels(config.levels, config.average_kernels) or [0]
        convolution = config.subsampling is Subsampling.CONVOLUTION
        self.kernels = uniform(config.levels - 1, 3, fan_in=3) if convolution else None

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The K versions of x, `[..., ceil(N / 2^k)]`, longest first (Eq. 3)."""
        views = [x]
        for k in range(len(self.levels) - 1):
            views.append(self._halve(views[-1], k))
        return views

    def _halve(self, x: Tensor, k: int) -> Tensor:
        if self.subsampling == "skip":
            return x[..., ::2]
        rows = x.reshape(-1, 1, x.shape[-1])
        kernels = self.kernels
        if kernels is not None:
            halved = F.conv1d(rows, kernels[k][None, None], stride=2, padding=1).tanh()
        elif self.subsampling == "max":
            halved = F.max_pool1d(rows, 3, stride=2, padding=1)
        else:
            kernel = self.average_kernels[k]
            halved = F.avg_pool1d(rows, kernel, stride=2, padding=(kernel - 1) // 2)
        return halved.reshape(x.shape[:-1] + halved.shape[-1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., N]` to `[..., 4, M]`."""
        views = self.pyramid(x)
        levels = [level(views[k]) for k, level in enumerate(self.levels)]
        return torch.cat(levels, dim=-1) + self.bias


class _Level(nn.Module):
    """The linear map of one pyramid level, without a bias: `[..., n_k]` to `[..., 4, o_k]`."""

    def __init__(self, inputs: int, outputs: int, fan_in: int) -> None:
        super().__init__()
        self.weight = uniform(4, outputs, inputs, fan_in=fan_in)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(0, 1)).view(x.shape[:-1] + self.weight.shape[:2])


def average_kernels(levels: int, kind: AverageKernels) -> list[int]:
    """Kernel width of the average that makes each level from the one before it (K - 1 of them)."""
    if kind is AverageKernels.PAPER:
        return [3] * (levels - 1)
    return [3 + 2 * (levels - 1 - k) for k in range(1, levels)]


def build_transform(kind: Transform, inputs: int, outputs: int, config: ModelConfig) -> nn.Module:
    """The transform of the given kind, with the levels, groups and sub-sampling of `config`."""
    match kind:
        case Transform.LINEAR:
            return LinearTransform(inputs, outputs)
        case Transform.GROUPED:
            return GroupedTransform(inputs, outputs, config.groups)
        case Transform.PYRAMIDAL:
            return PyramidalTransform(inputs, outputs, config)
