"""Transforms against sums written out by hand."""

import pytest
import torch

from model.config import AverageKernels, ModelConfig, Split, Subsampling, Transform, level_inputs, level_outputs
from model.transforms import GroupedTransform, LinearTransform, PyramidalTransform, average_kernels, build_transform


def config(**changes: object) -> ModelConfig:
    return ModelConfig.from_dict(
        {"vocabulary_size": 10, "embedding_size": 8, "hidden_size": 12, "layers": 3, "groups": 1, "levels": 3} | changes
    )


def pyramid(subsampling: Subsampling, x: list[float], **changes: object) -> list[list[float]]:
    transform = PyramidalTransform(len(x), 12, config(subsampling=subsampling, **changes))
    return [view.tolist() for view in transform.double().pyramid(torch.tensor(x, dtype=torch.float64))]


def test_skipping_keeps_every_second_element_from_the_first() -> None:
    assert pyramid(Subsampling.SKIP, [1, 2, 3, 4, 5]) == [[1, 2, 3, 4, 5], [1, 3, 5], [1, 5]]


def test_the_papers_average_is_over_three_elements_and_counts_the_padding() -> None:
    levels = pyramid(Subsampling.AVERAGE, [3, 6, 9, 12], average_kernels="paper")
    assert levels == [[3, 6, 9, 12], [3, 9], [4]]


def test_the_released_average_is_wider_the_earlier_the_level() -> None:
    assert average_kernels(4, AverageKernels.RELEASED) == [7, 5, 3]
    assert average_kernels(2, AverageKernels.RELEASED) == [3]
    assert average_kernels(4, AverageKernels.PAPER) == [3, 3, 3]
    levels = pyramid(Subsampling.AVERAGE, [5, 10, 15, 20], average_kernels="released")
    assert levels == [[5, 10, 15, 20], [6, 10], [16 / 3]]  # (5+10+15)/5 and (5+10+15+20)/5, then (6+10)/3


def test_the_maximum_is_over_three_elements_and_padding_never_wins() -> None:
    assert pyramid(Subsampling.MAX, [-5, -1, -4, -3, -2]) == [[-5, -1, -4, -3, -2], [-1, -1, -2], [-1, -1]]


def test_the_convolution_is_one_learned_kernel_a_level_under_tanh() -> None:
    transform = PyramidalTransform(4, 12, config(subsampling=Subsampling.CONVOLUTION, levels=2))
    assert transform.kernels is not None
    with torch.no_grad():
        transform.kernels.copy_(torch.tensor([[0.5, 1.0, -1.0]]))
    levels = transform.pyramid(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    expected = torch.tanh(torch.tensor([0.1 - 0.2, 0.5 * 0.2 + 0.3 - 0.4]))
    torch.testing.assert_close(levels[1], expected)
    assert sum(p.numel() for p in transform.parameters() if p is transform.kernels) == 3


def test_the_geometric_split_gives_level_one_the_remainder() -> None:
    assert level_outputs(600, 4, Split.GEOMETRIC) == (337, 150, 75, 38)
    assert level_outputs(1400, 2, Split.GEOMETRIC) == (1050, 350)
    assert level_outputs(12, 1, Split.GEOMETRIC) == (12,)


def test_a_geometric_split_that_leaves_level_one_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="use fewer levels"):
        level_outputs(1, 2, Split.GEOMETRIC)


def test_the_equal_split_needs_levels_that_divide_the_outputs() -> None:
    assert level_outputs(12, 3, Split.EQUAL) == (4, 4, 4)
    with pytest.raises(ValueError, match="use split=geometric"):
        level_outputs(13, 3, Split.EQUAL)


def test_each_level_sees_half_of_the_level_before_rounded_up() -> None:
    assert level_inputs(400, 4) == (400, 200, 100, 50)
    assert level_inputs(5, 3) == (5, 3, 2)


def test_a_pyramidal_transform_concatenates_its_levels() -> None:
    transform = PyramidalTransform(8, 12, config(subsampling=Subsampling.SKIP, levels=2)).double()
    x = torch.randn(5, 8, dtype=torch.float64)
    long, short = (parameter for name, parameter in transform.named_parameters() if name.startswith("levels"))
    y = transform(x)
    assert y.shape == (5, 4, 12)
    for gate in range(4):
        expected = torch.cat([x @ long[gate].T, x[:, ::2] @ short[gate].T], dim=1) + transform.bias[gate]
        torch.testing.assert_close(y[:, gate], expected, rtol=1e-12, atol=1e-12)


def test_one_level_is_a_linear_transform() -> None:
    pyramidal, linear = PyramidalTransform(8, 12, config(levels=1)), LinearTransform(8, 12)
    linear.load_state_dict({"weight": dict(pyramidal.named_parameters())["levels.0.weight"], "bias": pyramidal.bias})
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(pyramidal(x), linear(x))


def test_a_group_sees_its_own_part_of_the_vector_alone() -> None:
    transform = GroupedTransform(8, 12, groups=4).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    y = transform(x)
    for gate in range(4):
        for j in range(4):
            expected = x[:, 2 * j : 2 * j + 2] @ transform.weight[gate, j].T + transform.bias[gate, 3 * j : 3 * j + 3]
            torch.testing.assert_close(y[:, gate, 3 * j : 3 * j + 3], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", list(Transform))
@pytest.mark.parametrize("subsampling", list(Subsampling))
@pytest.mark.parametrize("inputs", [8, 9, 16])
def test_every_transform_maps_to_four_gates_and_passes_gradients(
    kind: Transform, subsampling: Subsampling, inputs: int
) -> None:
    groups = 1 if inputs == 9 else 4
    transform = build_transform(kind, inputs, 12, config(subsampling=subsampling, groups=groups))
    x = torch.randn(2, 5, inputs, requires_grad=True)
    y = transform(x)
    assert y.shape == (2, 5, 4, 12)
    y.square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in transform.parameters())
