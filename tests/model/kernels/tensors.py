"""Random tensors for the tests of the kernels, and their values in float64.

Operands are rounded to a kernel's type before they are compared with, so that a tolerance is about its sums alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
CLOSE = 3e-6
"""Largest difference that summing some hundred products in float32 may make to a number of about 1."""


class Sizes(NamedTuple):
    """Rows, inputs, groups, and outputs a group."""

    batch: int
    inputs: int
    groups: int
    m: int


class Operands(NamedTuple):
    """What `reference.step` is called with."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    context: Tensor
    h: Tensor
    c: Tensor

    def exact(self) -> Operands:
        """The same values in float64, vectors rounded as the kernels round them."""
        dtype = self.weight.dtype
        return Operands(*(part.double() for part in self._replace(x=self.x.to(dtype), h=self.h.to(dtype))))


def operands(sizes: Sizes, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Operands:
    """A layer's weights and a batch to read."""
    batch, inputs, groups, m = sizes
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    found = Operands(
        x=draw(batch, inputs),
        weight=(draw(inputs, 4, groups * m) / inputs**0.5).to(dtype),
        bias=draw(4, groups * m),
        context=(draw(groups, m, 4, m) / m**0.5).to(dtype),
        h=draw(batch, groups * m).tanh(),
        c=draw(batch, groups * m),
    )
    return Operands(*(part.to(device) for part in found))


def spread(tensor: Tensor) -> Tensor:
    """The same values with every axis strided and NaN, or the largest integer, between them."""
    fill = float("nan") if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max
    room = torch.full([2 * size for size in tensor.shape], fill, dtype=tensor.dtype, device=tensor.device)
    view = room[tuple(slice(None, None, 2) for _ in tensor.shape)]
    view.copy_(tensor)
    return view


def gates_innermost(tensor: Tensor) -> Tensor:
    """The same values `[..., 4, m]` with an output's gates beside each other in memory, as a GPU's model has them."""
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def close(found: Tensor, expected: Tensor, tolerance: float = CLOSE) -> None:
    """Fail where a value differs by more than `tolerance`, or is none."""
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance)
