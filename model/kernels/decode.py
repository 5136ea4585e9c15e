"""One step of one layer in one launch: both products of Eq. 5, the gating of Eq. 6 and the new state.

Boundary: tensors of one device in, new tensors out; `model.kernels.reference.step` is what it computes. A program makes
`BLOCK_M` outputs of one group, for one vector by sums, for several by the tensor cores. It needs Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model.kernels.launch import PROGRAMS, Launch, blocks, power_of_two
from model.kernels.tiles import gating, lane_offsets, lanes_inside, product

MOST_ROWS = 64
"""Most rows of one program; larger batches read the weights more than once. Four bytes a weight leave room for 16."""


def step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    context: Tensor,
    h: Tensor,
    c: Tensor,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`reference.step` with any strides: `x [B, N]`, `weight [N, 4, M]`, `bias [4, M]`, `context`, state `[B, M]`.

    Columns of a group may be padded: `weight [N, 4, g, p]` and `context [g, m, 4, p]` for a p above m, of which the
    last ones are read and not used. Vectors and state are float32. Returns h and c after the step, in `out` where it is
    given, which must not overlap with what is read.
    """
    after = out or (h.new_empty(h.shape), c.new_empty(c.shape))
    launch(x, weight, bias, context, h, c, after).run()
    return after


def launch(
    x: Tensor, weight: Tensor, bias: Tensor, context: Tensor, h: Tensor, c: Tensor, after: tuple[Tensor, Tensor]
) -> Launch:
    """The launch that `step` runs."""
    batch, inputs = x.shape
    groups, size, _, columns = context.shape
    if weight.dim() == 3:
        weight = weight.unflatten(-1, (groups, size))
    most = MOST_ROWS if weight.element_size() == 2 else 16
    block_b = 1 if batch == 1 else power_of_two(batch, 16, most)
    batches = blocks(batch, block_b)
    block_m = 32
    while block_m > 4 and batches * groups * blocks(size, block_m) < PROGRAMS:
        block_m //= 2
    # 16 KB of half precision in flight a program, where there are as many programs as multiprocessors.
    block_n = power_of_two(max(inputs, size), 16, 2048 // block_m if block_b == 1 else 64)
    h_after, c_after = after
    arguments = {
        "x": x,
        "weight": weight,
        "bias": bias,
        "context": context,
        "h": h,
        "c": c,
        "h_after": h_after,
        "c_after": c_after,
        "batch": batch,
        "x_row": x.stride(0),
        "x_column": x.stride(1),
        "weight_row": weight.stride(0),
        "weight_group": weight.stride(2),
        "context_group": context.stride(0),
        "context_row": context.stride(1),
        "h_row": h.stride(0),
        "h_column": h.stride(1),
        "c_row": c.stride(0),
        "c_column": c.stride(1),
        "h_after_row": h_after.stride(0),
        "h_after_column": h_after.stride(1),
        "c_after_row": c_after.stride(0),
        "c_after_column": c_after.stride(1),
    }
    constants = {
        "BIAS_GATE": bias.stride(0),
        "BIAS_COLUMN": bias.stride(1),
        "WEIGHT_GATE": weight.stride(1),
        "WEIGHT_COLUMN": weight.stride(3),
        "CONTEXT_GATE": context.stride(2),
        "CONTEXT_COLUMN": context.stride(3),
        "INPUTS": inputs,
        "SIZE": size,
        "COLUMNS": columns,
        "BLOCK_B": block_b,
        "BLOCK_N": block_n,
        "BLOCK_M": block_m,
    }
    grid = (blocks(size, block_m), groups, batches)
    return Launch(_step, grid, arguments, constants, warps=4 if block_b == 16 else 8, stages=3)


@triton.jit(do_not_specialize=["batch"])
def _step(
    x,
    weight,
    bias,
    context,
    h,
    c,
    h_after,
    c_after,
    batch,
    x_row,
    x_column,
    weight_row,
    weight_group,
    context_group,
    context_row,
    h_row,
    h_column,
    c_row,
    c_column,
    h_after_row,
    h_after_column,
    c_after_row,
    c_after_column,
    BIAS_GATE: tl.constexpr,
    BIAS_COLUMN: tl.constexpr,
    WEIGHT_GATE: tl.constexpr,
    WEIGHT_COLUMN: tl.constexpr,
    CONTEXT_GATE: tl.constexpr,
    CONTEXT_COLUMN: tl.constexpr,
    INPUTS: tl.constexpr,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    tile, group = tl.program_id(0), tl.program_id(1)
    rows = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = rows < batch
    stored = lanes_inside(tile, COLUMNS, BLOCK_M)
    total = tl.zeros((BLOCK_N if BLOCK_B == 1 else BLOCK_B, 4 * BLOCK_M), tl.float32)
    total = product(
        total,
        x,
        rows * x_row,
        present,
        x_column,
        weight + group * weight_group,
        weight_row,
        lane_offsets(tile, WEIGHT_GATE, WEIGHT_COLUMN, BLOCK_M),
        stored,
        INPUTS,
        BLOCK_B,
        BLOCK_N,
    )
    total = product(
        total,
        h + group * SIZE * h_column,
        rows * h_row,
        present,
        h_column,
        context + group * context_group,
        context_row,
        lane_offsets(tile, CONTEXT_GATE, CONTEXT_COLUMN, BLOCK_M),
        stored,
        SIZE,
        BLOCK_B,
        BLOCK_N,
    )
    if BLOCK_B == 1:
        total = tl.sum(total, 0)[None, :]
    used = lanes_inside(tile, SIZE, BLOCK_M)
    biases = bias + group * SIZE * BIAS_COLUMN + lane_offsets(tile, BIAS_GATE, BIAS_COLUMN, BLOCK_M)
    total += tl.load(biases, mask=used, other=0.0)[None, :]
    column = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = present[:, None] & (column < SIZE)[None, :]
    column += group * SIZE
    before = tl.load(c + rows[:, None] * c_row + column[None, :] * c_column, mask=inside, other=0.0)
    h_new, c_new = gating(total, before, BLOCK_B, BLOCK_M)
    tl.store(h_after + rows[:, None] * h_after_row + column[None, :] * h_after_column, h_new, mask=inside)
    tl.store(c_after + rows[:, None] * c_after_row + column[None, :] * c_after_column, c_new, mask=inside)
