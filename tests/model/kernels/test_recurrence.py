"""The recurrence as it trains on a GPU: values, final state and gradients of the plain form in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig
from model.kernels.recurrence import FusedRecurrence, padded_context
from model.pru import PRULayer
from model.recurrence import GroupedRecurrence

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Largest error relative to the norm of what is right: of bfloat16, some roundings of 2^-9 each."""
SIZES = [(1, 1, 9, 4), (3, 4, 6, 5), (2, 2, 8, 3), (17, 3, 35, 2)]
"""Rows, groups, outputs a group and steps: groups that need padding and one that does not."""


def arguments(batch: int, groups: int, m: int, steps: int) -> list[Tensor]:
    """`pre`, weight and state, drawn at random."""
    generator = torch.Generator().manual_seed(batch)
    pre = torch.randn(steps, batch, 4, groups * m, generator=generator)
    weight = torch.randn(4, groups, m, m, generator=generator) / m**0.5
    h, c = torch.randn(2, batch, groups * m, generator=generator)
    return [pre, weight, h.tanh(), c]


def results(function: type[torch.autograd.Function], given: list[Tensor]) -> list[Tensor]:
    """h, the last c, and the gradients of all arguments by a loss in which every output counts differently."""
    given = [tensor.clone().requires_grad_() for tensor in given]
    h, c = function.apply(*given)
    weights = torch.linspace(0, 1, h.numel(), dtype=torch.float64, device=h.device).view(h.shape)
    loss = (h.double() * weights).sum() + (c.double() * h[-1].double()).sum()
    return [h, c, *torch.autograd.grad(loss, given)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("batch", "groups", "m", "steps"), SIZES)
@pytest.mark.usefixtures("_poisoned")
def test_it_gives_values_and_gradients_of_the_plain_form(
    batch: int, groups: int, m: int, steps: int, dtype: torch.dtype, device: torch.device
) -> None:
    pre, *others = arguments(batch, groups, m, steps)
    pre = pre.to(dtype)
    expected = results(GroupedRecurrence, [tensor.double() for tensor in (pre, *others)])
    found = results(FusedRecurrence, [tensor.to(device) for tensor in (pre, *others)])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours.cpu().double() - theirs).norm() <= TOLERANCES[dtype] * theirs.norm()
    assert [tensor.dtype for tensor in found] == [dtype, torch.float32, dtype, *[torch.float32] * 3]


def test_a_gradient_that_is_laid_out_otherwise_is_read_as_it_is_meant(device: torch.device) -> None:
    given = [tensor.to(device).requires_grad_() for tensor in arguments(3, 4, 6, 5)]
    upstream = torch.randn(3, 5, 24, device=device)
    h, _ = FusedRecurrence.apply(*given)  # type: ignore[no-untyped-call]
    (strided,) = torch.autograd.grad(h, given[0], upstream.transpose(0, 1), retain_graph=True)
    (whole,) = torch.autograd.grad(h, given[0], upstream.transpose(0, 1).contiguous())
    assert torch.equal(strided, whole)


def test_a_context_is_padded_with_zeros_to_whole_loads() -> None:
    weight = torch.arange(4 * 2 * 3 * 3, dtype=torch.float32).view(4, 2, 3, 3)
    padded = padded_context(weight, torch.float32).view(2, 8, 4, 8)
    assert torch.equal(padded[:, :3, :, :3], weight.permute(1, 3, 0, 2))
    assert padded.sum() == weight.sum()


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 4, "levels": 2},
        {"groups": 1, "levels": 1, "residual": False},
        {"groups": 4, "levels": 3, "subsampling": "max"},
        {"input_transform": "grouped", "context_transform": "linear"},
    ],
)
@pytest.mark.parametrize("inputs", [40, 60])
def test_on_a_gpu_a_layer_gives_its_values_and_gradients(
    inputs: int, changes: dict[str, object], cuda: torch.device
) -> None:
    torch.manual_seed(5)
    sizes = {"vocabulary_size": 10, "embedding_size": 40, "hidden_size": 60, "layers": 3, "groups": 4, "levels": 2}
    layer = PRULayer(inputs, 60, ModelConfig.from_dict(sizes | changes)).double()
    x = torch.randn(3, 7, inputs, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, 3, 60, dtype=torch.float64).tanh()

    def run(x: Tensor, h0: Tensor, c0: Tensor) -> list[Tensor]:
        y, (h, c) = layer(x, (h0, c0))
        loss = y.sin().sum() + (c * h).sum()
        return [
            found.detach().cpu().double() for found in (y, h, c, *torch.autograd.grad(loss, [x, *layer.parameters()]))
        ]

    expected = run(x, h0, c0)
    layer.to(cuda, torch.float32)
    given = [tensor.detach().to(cuda, torch.float32) for tensor in (x, h0, c0)]
    for ours, theirs in zip(run(given[0].requires_grad_(), *given[1:]), expected, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    with torch.no_grad():
        y, _ = layer(given[0], (given[1], given[2]))
    assert (y.cpu().double() - expected[0]).norm() <= 1e-3 * expected[0].norm()
