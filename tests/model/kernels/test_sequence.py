"""The recurrence in one launch against the plain form in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.kernels import decode, reference, sequence
from tests.model.kernels.tensors import DTYPES, Sizes, close, gates_innermost, operands, spread

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def arguments(
    sizes: Sizes, steps: int, dtype: torch.dtype, device: torch.device, seed: int = 0, lengths: list[int] | None = None
) -> Arguments:
    """`pre`, `context`, `h`, `c` and lengths: those given, or some between 0 and `steps`."""
    layer = operands(sizes, dtype, device, seed)
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(sizes.batch, steps, 4, sizes.groups * sizes.m, generator=generator)
    drawn = torch.randint(0, steps + 1, (sizes.batch,), generator=generator)
    read = drawn if lengths is None else torch.tensor(lengths)
    return pre.to(device), layer.context, layer.h, layer.c, read.int().to(device)


def check(given: Arguments) -> None:
    """Every step is that of the reference, given the h that the kernel had before it.

    A last bit of h can decide how it is rounded to half precision, so each step begins from the kernel's own.
    """
    pre, context, h, c, lengths = given
    y, h_last, c_last = sequence.sequence(*given)
    assert y.shape == (len(pre), pre.shape[1], h.shape[1])
    before, cells, last = h, c.double(), h.double()
    for t in range(pre.shape[1]):
        inside = (t < lengths)[:, None]
        product = reference.context_product(before.to(context.dtype).double(), context.double())
        h_next, c_next = reference.gating(pre[:, t].double() + product, cells)
        close(y[:, t], torch.where(inside, h_next, 0))
        cells, last = torch.where(inside, c_next, cells), torch.where(inside, h_next, last)
        before = y[:, t]
    close(h_last, last)
    close(c_last, cells)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("sizes", "steps"),
    [
        (Sizes(batch=1, inputs=1, groups=4, m=9), 5),
        (Sizes(batch=17, inputs=1, groups=8, m=3), 3),
        (Sizes(batch=67, inputs=1, groups=1, m=35), 2),
        (Sizes(batch=2, inputs=1, groups=2, m=70), 4),
    ],
    ids=str,
)
@pytest.mark.usefixtures("_poisoned")
def test_a_sequence_is_the_plain_recurrence_in_float64(
    sizes: Sizes, steps: int, dtype: torch.dtype, device: torch.device
) -> None:
    check(arguments(sizes, steps, dtype, device))


def test_a_sequence_of_a_group_as_wide_as_the_papers_is_the_plain_recurrence(device: torch.device) -> None:
    check(arguments(Sizes(batch=3, inputs=1, groups=1, m=350), 3, torch.bfloat16, device, lengths=[3, 1, 2]))


@settings(max_examples=15)
@given(
    sizes=st.builds(Sizes, st.integers(1, 20), st.just(1), st.integers(1, 3), st.integers(1, 40)),
    steps=st.integers(0, 4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_a_sequence_of_any_size_is_the_plain_recurrence(
    sizes: Sizes, steps: int, dtype: torch.dtype, seed: int, device: torch.device
) -> None:
    check(arguments(sizes, steps, dtype, device, seed))


@pytest.mark.usefixtures("_poisoned")
def test_rows_without_a_step_keep_their_state_and_have_no_output(device: torch.device) -> None:
    given = arguments(Sizes(batch=3, inputs=1, groups=2, m=5), 4, torch.float32, device, lengths=[0, 4, 0])
    y, h, c = sequence.sequence(*given)
    for row in (0, 2):
        assert torch.equal(y[row], torch.zeros(4, 10, device=device))
        assert torch.equal(h[row], given[2][row])
        assert torch.equal(c[row], given[3][row])


def test_the_last_h_is_that_of_a_rows_last_step(device: torch.device) -> None:
    lengths = [1, 4, 2]
    y, h, _ = sequence.sequence(
        *arguments(Sizes(batch=3, inputs=1, groups=2, m=5), 4, torch.bfloat16, device, lengths=lengths)
    )
    assert torch.equal(h, torch.stack([y[row, length - 1] for row, length in enumerate(lengths)]))


def test_a_sequence_cut_in_two_gives_the_same_to_the_bit(device: torch.device) -> None:
    pre, context, h, c, _ = arguments(Sizes(batch=3, inputs=1, groups=2, m=35), 5, torch.bfloat16, device)
    full, two, three = (torch.full((3,), steps, dtype=torch.int32, device=device) for steps in (5, 2, 3))
    whole = sequence.sequence(pre, context, h, c, full)
    first, h, c = sequence.sequence(pre[:, :2], context, h, c, two)
    second, h, c = sequence.sequence(pre[:, 2:], context, h, c, three)
    for found, expected in zip((torch.cat([first, second], dim=1), h, c), whole, strict=True):
        assert torch.equal(found, expected)


def test_a_row_does_not_depend_on_the_rows_beside_it(device: torch.device) -> None:
    pre, context, h, c, lengths = arguments(
        Sizes(batch=20, inputs=1, groups=2, m=35), 3, torch.bfloat16, device, lengths=[3] * 20
    )
    together = sequence.sequence(pre, context, h, c, lengths)
    alone = sequence.sequence(pre[18:19], context, h[18:19], c[18:19], lengths[18:19])
    for found, expected in zip(alone, together, strict=True):
        assert torch.equal(found[0], expected[18])


@pytest.mark.parametrize("arranged", [spread, gates_innermost], ids=["spread", "gates innermost"])
def test_a_sequence_reads_views_of_any_strides(arranged: object, device: torch.device) -> None:
    given = arguments(Sizes(batch=3, inputs=1, groups=2, m=6), 3, torch.float16, device)
    pre, context, h, c, lengths = map(spread, given)
    if arranged is gates_innermost:
        pre, context = gates_innermost(given[0]), gates_innermost(given[1])
    for found, expected in zip(sequence.sequence(pre, context, h, c, lengths), sequence.sequence(*given), strict=True):
        close(found, expected)


def test_columns_that_pad_a_group_are_not_used(device: torch.device) -> None:
    pre, context, *rest = arguments(Sizes(batch=3, inputs=1, groups=2, m=6), 3, torch.float16, device)
    wide_pre = torch.full((3, 3, 4, 2, 8), float("nan"), device=device)
    wide_pre[..., :6] = pre.unflatten(-1, (2, 6))
    wide_context = torch.full((2, 6, 4, 8), float("nan"), dtype=torch.float16, device=device)
    wide_context[..., :6] = context
    expected = sequence.sequence(pre, context, *rest)
    for found, wanted in zip(sequence.sequence(wide_pre, wide_context, *rest), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_sequence_of_one_step_is_a_step(device: torch.device) -> None:
    layer = operands(Sizes(batch=5, inputs=7, groups=2, m=20), torch.float16, device)
    exact = layer.exact()
    pre = (torch.einsum("bn,nvm->bvm", exact.x, exact.weight) + exact.bias).float()[:, None]
    _, *state = sequence.sequence(pre, layer.context, layer.h, layer.c, torch.ones(5, dtype=torch.int32, device=device))
    matrix = decode.pack(layer.weight, layer.context)
    after = decode.step(layer.x, matrix, layer.bias, layer.h, layer.c)
    for found, expected in zip(state, after, strict=True):
        close(found, expected)
