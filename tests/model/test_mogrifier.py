"""Mogrifier gates against their equations, and layers that have them against the cell."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig
from model.errors import ConfigurationError
from model.mogrifier import Mogrifier
from model.pru import PRU, PRUCell, PRULayer


def config(**changes: object) -> ModelConfig:
    settings = {"vocabulary_size": 10, "embedding_size": 8, "hidden_size": 12, "layers": 3, "mogrifier_rounds": 5}
    return ModelConfig.from_dict(settings | changes)


def test_five_rounds_are_the_published_equations() -> None:
    mogrifier = Mogrifier(8, 12, config()).double()
    q1, r2, q3, r4, q5 = (parameter.detach() for parameter in mogrifier.parameters())
    x, h = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 12, dtype=torch.float64)
    x1 = 2 * torch.sigmoid(h @ q1.T) * x
    h2 = 2 * torch.sigmoid(x1 @ r2.T) * h
    x3 = 2 * torch.sigmoid(h2 @ q3.T) * x1
    h4 = 2 * torch.sigmoid(x3 @ r4.T) * h2
    x5 = 2 * torch.sigmoid(h4 @ q5.T) * x3
    gated_x, gated_h = mogrifier(x, h)
    torch.testing.assert_close(gated_x, x5, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gated_h, h4, rtol=1e-12, atol=1e-12)


def test_a_low_rank_gate_is_the_gate_of_the_product() -> None:
    low, full = Mogrifier(8, 12, config(mogrifier_rank=3)), Mogrifier(8, 12, config())
    factors = list(low.parameters())
    products = [left @ right for left, right in zip(factors[::2], factors[1::2], strict=True)]
    assert [tuple(product.shape) for product in products] == [(8, 12), (12, 8), (8, 12), (12, 8), (8, 12)]
    with torch.no_grad():
        for parameter, product in zip(full.parameters(), products, strict=True):
            parameter.copy_(product)
    x, h = torch.randn(3, 8), torch.randn(3, 12)
    for found, expected in zip(low(x, h), full(x, h), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("context", ["grouped", "linear", "pyramidal"])
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("inputs", [8, 12])
def test_a_layer_with_gates_equals_the_cell_applied_step_by_step(context: str, rounds: int, inputs: int) -> None:
    layer = PRULayer(inputs, 12, config(context_transform=context, mogrifier_rounds=rounds)).double()
    x = torch.randn(2, 6, inputs, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, 2, 12, dtype=torch.float64).tanh()
    state, outputs = (h0, c0), []
    for t in range(6):
        state = PRUCell.forward(layer, x[:, t], state)
        outputs.append(state[0])
    y, (h, c) = layer(x, (h0, c0))
    results: list[list[Tensor]] = []
    for out, last in ((y, (h, c)), (torch.stack(outputs, 1), state)):
        loss = out.sin().sum() + (last[0] * last[1]).sum()
        results.append([out, *last, *torch.autograd.grad(loss, [x, *layer.parameters()])])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_state_of_a_gated_stack_is_carried_over_any_cut() -> None:
    stack = PRU(config()).double()
    x, start = torch.randn(3, 9, 8, dtype=torch.float64), torch.randn(3, stack.config.state_size).double().tanh()
    whole, after = stack(x, start)
    state, pieces = start, []
    for begin, end in itertools.pairwise([0, 2, 3, 9]):
        piece, state = stack(x[:, begin:end], state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, after, rtol=1e-12, atol=1e-12)


def test_a_rank_without_rounds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mogrifier_rank"):
        config(mogrifier_rounds=0, mogrifier_rank=4)
