"""One LSTM operator a group against the layer's other form, which is itself tested against the cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.grouped_lstm import grouped_lstm
from model.config import ModelConfig
from model.pru import PRULayer

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


def config(**changes: object) -> ModelConfig:
    settings = {"vocabulary_size": 10, "embedding_size": 8, "hidden_size": 12, "layers": 3, "groups": 4, "levels": 2}
    return ModelConfig.from_dict(settings | changes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 1, "levels": 1, "residual": False},
        {"groups": 2, "levels": 3},
        {"groups": 4, "levels": 2, "subsampling": "skip"},
        {"groups": 4, "levels": 1, "subsampling": "max"},
        {"input_transform": "linear"},
        {"input_transform": "grouped", "context_transform": "linear"},
    ],
)
@pytest.mark.parametrize("inputs", [8, 12])
def test_an_lstm_a_group_gives_the_values_and_gradients_of_the_layer(
    device: str, changes: dict[str, object], inputs: int
) -> None:
    torch.manual_seed(5)
    layer = PRULayer(inputs, 12, config(**changes)).double()
    x = torch.randn(3, 7, inputs, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, 3, 12, dtype=torch.float64).tanh()

    def results(y: Tensor, c: Tensor, wanted: list[Tensor]) -> list[Tensor]:
        loss = y.sin().sum() + (c * y[:, -1]).sum()
        return [found.cpu() for found in (y, c, *torch.autograd.grad(loss, wanted))]

    y, (_, c) = layer(x, (h0, c0))
    expected = results(y, c, [x, *layer.parameters()])
    layer.to(device)
    there = x.detach().to(device).requires_grad_()
    context = dict(layer.context.named_parameters())
    y, c = grouped_lstm(layer.from_input, context["weight"], context["bias"], there, h0.to(device), c0.to(device))
    for found, reference in zip(results(y, c, [there, *layer.parameters()]), expected, strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"subsampling": "average"}, True),
        ({"subsampling": "skip"}, True),
        ({"subsampling": "max"}, False),
        ({"subsampling": "convolution"}, False),
        ({"subsampling": "max", "levels": 1}, True),
        ({"subsampling": "max", "input_transform": "linear"}, True),
    ],
)
def test_an_input_is_linear_where_nothing_in_its_pyramid_is_not(changes: dict[str, object], expected: bool) -> None:
    settings = config(**changes)
    assert settings.input_is_linear is expected
    layer = PRULayer(8, 12, settings).double()
    a, b = torch.randn(2, 5, 8, dtype=torch.float64)
    zero = layer.from_input(torch.zeros_like(a))
    linear = torch.allclose(layer.from_input(a + b) - zero, layer.from_input(a) + layer.from_input(b) - 2 * zero)
    assert linear is expected
