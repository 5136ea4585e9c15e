"""The unit against `torch.nn.LSTM`, its fast form against the cell, and sequences against their chunks."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.config import ModelConfig, Subsampling, Transform
from model.errors import ConfigurationError
from model.pru import PRU, PRUCell, PRULayer, State, unpack

TIGHT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def config(**changes: object) -> ModelConfig:
    return ModelConfig.from_dict(
        {"vocabulary_size": 10, "embedding_size": 8, "hidden_size": 12, "layers": 3, "groups": 4, "levels": 2} | changes
    )


def random_state(batch: int, size: int) -> State:
    h, c = torch.randn(2, batch, size, dtype=torch.float64, requires_grad=True).tanh()
    return h, c


def step_by_step(layer: PRULayer, x: Tensor, state: State) -> tuple[Tensor, State]:
    """The specification: the cell applied to one input after the other."""
    outputs = []
    for t in range(x.shape[1]):
        state = PRUCell.forward(layer, x[:, t], state)
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state


def test_an_lstm_configured_layer_equals_torchs_lstm_with_its_gradients() -> None:
    layer = PRULayer(8, 12, config(groups=1, levels=1, residual=False)).double()
    lstm = nn.LSTM(8, 12, batch_first=True).double()
    ours, theirs = dict(layer.named_parameters()), dict(lstm.named_parameters())
    names = {
        "input.levels.0.weight": "weight_ih_l0",
        "context.weight": "weight_hh_l0",
        "input.bias": "bias_ih_l0",
        "context.bias": "bias_hh_l0",
    }
    with torch.no_grad():
        for name, other in names.items():
            theirs[other].copy_(ours[name].reshape(theirs[other].shape))
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    h0, c0 = random_state(3, 12)
    y, (h, c) = layer(x, (h0, c0))
    expected, (expected_h, expected_c) = lstm(x, (h0[None], c0[None]))
    torch.testing.assert_close(y, expected, **TIGHT)
    torch.testing.assert_close(h, expected_h[0], **TIGHT)
    torch.testing.assert_close(c, expected_c[0], **TIGHT)

    weight = torch.randn_like(y)
    (y * weight).sum().add(c.sum()).backward(retain_graph=True)
    (expected * weight).sum().add(expected_c.sum()).backward()
    for name, other in names.items():
        mine, reference = ours[name].grad, theirs[other].grad
        assert mine is not None
        assert reference is not None
        torch.testing.assert_close(mine.reshape(reference.shape), reference, **TIGHT)


@pytest.mark.parametrize(("groups", "levels", "inputs"), [(1, 2, 12), (2, 3, 8), (4, 2, 12), (4, 4, 20)])
def test_a_layer_equals_one_lstm_a_group(groups: int, levels: int, inputs: int) -> None:
    """DESIGN: average sub-sampling is linear, so each group is an LSTM with a dense input matrix of its own."""
    layer = PRULayer(inputs, 12, config(embedding_size=20, groups=groups, levels=levels)).double()
    m, weights = 12 // groups, dict(layer.named_parameters())
    # The input's matrix as it acts: the images of the unit vectors, less the image of zero.
    eye, zero = torch.eye(inputs, dtype=torch.float64), torch.zeros(1, inputs, dtype=torch.float64)
    offset = layer.from_input(zero)[0]
    matrix = (layer.from_input(eye) - offset).permute(1, 2, 0)
    x = torch.randn(3, 9, inputs, dtype=torch.float64)
    h0, c0 = random_state(3, 12)
    y, (h, c) = layer(x, (h0, c0))
    for j in range(groups):
        part = slice(j * m, (j + 1) * m)
        lstm = nn.LSTM(inputs, m, batch_first=True).double()
        parameters = {
            "weight_ih_l0": matrix[:, part].reshape(4 * m, inputs),
            "weight_hh_l0": weights["context.weight"][:, j].reshape(4 * m, m),
            "bias_ih_l0": offset[:, part].reshape(-1),
            "bias_hh_l0": weights["context.bias"][:, part].reshape(-1),
        }
        lstm.load_state_dict(parameters)
        with torch.no_grad():
            expected, (expected_h, expected_c) = lstm(
                x, (h0[None, :, part].contiguous(), c0[None, :, part].contiguous())
            )
        torch.testing.assert_close(y[..., part], expected, **TIGHT)
        torch.testing.assert_close(h[:, part], expected_h[0], **TIGHT)
        torch.testing.assert_close(c[:, part], expected_c[0], **TIGHT)


@pytest.mark.parametrize("context", list(Transform))
@pytest.mark.parametrize("input_", list(Transform))
@pytest.mark.parametrize("subsampling", [Subsampling.AVERAGE, Subsampling.CONVOLUTION])
@pytest.mark.parametrize("inputs", [8, 12])
def test_a_sequence_equals_the_cell_applied_step_by_step(
    input_: Transform, context: Transform, subsampling: Subsampling, inputs: int
) -> None:
    settings = config(input_transform=input_, context_transform=context, subsampling=subsampling)
    layer = PRULayer(inputs, 12, settings).double()
    x = torch.randn(2, 6, inputs, dtype=torch.float64, requires_grad=True)
    state = random_state(2, 12)
    results = []
    for form in (layer, lambda x, state: step_by_step(layer, x, state)):
        y, (h, c) = form(x, state)
        loss = (y.cumsum(1) * 0.1).sin().sum() + (h * c).sum()
        gradients = torch.autograd.grad(loss, [x, *state, *layer.parameters()])
        results.append([y, h, c, *gradients])
    for fast, specified in zip(*results, strict=True):
        torch.testing.assert_close(fast, specified, **TIGHT)


@pytest.mark.parametrize("context", [Transform.GROUPED, Transform.PYRAMIDAL])
def test_a_sequence_equals_its_chunks_with_carried_state(context: Transform) -> None:
    stack = PRU(config(context_transform=context)).double()
    x = torch.randn(3, 11, 8, dtype=torch.float64)
    start = torch.randn(3, stack.config.state_size, dtype=torch.float64).tanh()
    whole, after = stack(x, start)
    pieces, state = [], start
    for begin, end in itertools.pairwise([0, 1, 4, 10, 11]):
        piece, state = stack(x[:, begin:end], state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **TIGHT)
    torch.testing.assert_close(state, after, **TIGHT)


def test_the_residual_adds_the_input_to_every_gate_where_sizes_match() -> None:
    with_residual, without = (PRULayer(12, 12, config(residual=residual)) for residual in (True, False))
    without.load_state_dict(with_residual.state_dict())
    x = torch.randn(5, 12)
    torch.testing.assert_close(with_residual.from_input(x) - without.from_input(x), x[:, None].expand(5, 4, 12))
    assert not PRULayer(8, 12, config(residual=True)).residual


def test_state_rows_hold_h_then_c_of_each_layer() -> None:
    settings = config()
    assert settings.state_size == 2 * (12 + 12 + 8)
    parts = unpack(torch.arange(64.0)[None], settings)
    assert [[part[0, 0].item() for part in layer] for layer in parts] == [[0, 12], [24, 36], [48, 56]]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"layers": 1}, "hidden_size"),
        ({"groups": 5}, "groups=5"),
        ({"levels": 6}, "levels=6"),
        ({"split": "equal", "levels": 5, "groups": 1, "hidden_size": 12}, "split=equal"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"subsampling": "median"}, "subsampling"),
        ({"width": 3}, "width"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        config(**changes)
