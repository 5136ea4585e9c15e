"""One step in one launch against the plain form in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.kernels import decode, reference
from tests.model.kernels.tensors import DTYPES, Operands, Sizes, close, operands, spread


def step(given: Operands, out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """`decode.step` of matrices that it packs."""
    matrix = decode.pack(given.weight, given.context)
    return decode.step(given.x, matrix, given.bias, given.h, given.c, out)


def check(given: Operands) -> None:
    """The kernel's h and c are those of the reference."""
    for found, expected in zip(step(given), reference.step(*given.exact()), strict=True):
        close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(batch=1, inputs=40, groups=4, m=9),
        Sizes(batch=1, inputs=1, groups=1, m=1),
        Sizes(batch=2, inputs=33, groups=8, m=5),
        Sizes(batch=17, inputs=16, groups=3, m=16),
        Sizes(batch=67, inputs=70, groups=2, m=7),
    ],
    ids=str,
)
@pytest.mark.usefixtures("_poisoned")
def test_a_step_is_the_plain_step_in_float64(sizes: Sizes, dtype: torch.dtype, device: torch.device) -> None:
    check(operands(sizes, dtype, device))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_step_of_a_group_as_wide_as_the_papers_is_the_plain_step(batch: int, device: torch.device) -> None:
    check(operands(Sizes(batch, inputs=400, groups=1, m=350), torch.bfloat16, device))


@settings(max_examples=20)
@given(
    sizes=st.builds(Sizes, st.integers(1, 20), st.integers(1, 40), st.integers(1, 4), st.integers(1, 20)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_a_step_of_any_size_is_the_plain_step(
    sizes: Sizes, dtype: torch.dtype, seed: int, device: torch.device
) -> None:
    check(operands(sizes, dtype, device, seed))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_reads_and_writes_views_of_any_strides(batch: int, device: torch.device) -> None:
    given = operands(Sizes(batch, inputs=12, groups=2, m=6), torch.float16, device)
    out = spread(given.h), spread(given.c)
    assert step(Operands(*map(spread, given)), out) is out
    for found, expected in zip(out, step(given), strict=True):
        close(found, expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_vectors_are_looked_up_in_a_table(batch: int, device: torch.device) -> None:
    given = operands(Sizes(batch, inputs=12, groups=2, m=6), torch.float16, device)
    ids = torch.tensor([6, 0, 6], device=device)[:batch]
    table = torch.full((7, 12), float("nan"), dtype=torch.float16, device=device)
    table[ids] = given.x[-1].half()
    matrix = decode.pack(given.weight, given.context)
    found = decode.step(table, matrix, given.bias, given.h, given.c, ids=ids)
    for value, expected in zip(found, step(given._replace(x=table[ids])), strict=True):
        assert torch.equal(value, expected)


def test_a_tile_holds_the_gates_of_its_outputs_for_every_input_and_every_h() -> None:
    weight = torch.arange(3 * 4 * 10.0).view(3, 4, 10)
    context = -1 - torch.arange(2 * 5 * 4 * 5.0).view(2, 5, 4, 5)
    matrix = decode.pack(weight, context)
    assert matrix.shape == (2, 2, 3 + 5, decode.TILE, 4)
    assert matrix.is_contiguous()
    for group, output in ((0, 0), (0, 4), (1, 3)):
        tile, place = divmod(output, decode.TILE)
        assert torch.equal(matrix[group, tile, :3, place], weight[:, :, group * 5 + output])
        assert torch.equal(matrix[group, tile, 3:, place], context[group, :, :, output])
    assert not matrix[:, 1, :, 1:].any()


def test_a_step_leaves_what_it_reads_as_it_was(device: torch.device) -> None:
    given = operands(Sizes(batch=4, inputs=5, groups=2, m=3), torch.float32, device)
    before = [part.clone() for part in given]
    step(given)
    assert all(torch.equal(part, copy) for part, copy in zip(given, before, strict=True))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # Its inverse is 0, as it should be.
def test_gates_that_are_shut_or_open_wide_give_no_infinity(device: torch.device) -> None:
    given = operands(Sizes(batch=2, inputs=3, groups=1, m=4), torch.float32, device)
    bias = torch.full((4, 4), 60.0, device=device)
    bias[:, ::2] = -60.0
    h, c = step(given._replace(bias=bias))
    close(c[:, ::2], torch.zeros(2, 2, device=device))
    close(h[:, 1::2], torch.tanh(given.c[:, 1::2].double() + 1))
