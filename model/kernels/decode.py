"""One step of one layer in one launch: both products of Eq. 5, the gating of Eq. 6 and the new state.

Boundary: tensors of one device in, new tensors out; `model.kernels.reference.step` is what it computes. A program makes
`BLOCK_M` outputs of one group, for one vector by sums, for several by the tensor cores. It needs Triton.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor, cat
from torch.nn.functional import pad

from model.kernels.launch import PROGRAMS, Launch, blocks, power_of_two
from model.kernels.tiles import gating, lane_offsets, lanes_inside

TILE = 4
"""Outputs whose weights lie in one piece: with their gates, a row of a piece is 32 bytes of half precision."""
MOST_ROWS = 64
"""Most rows of one program; larger batches read the weights more than once. Four bytes a weight leave room for 16."""


class Cut(NamedTuple):
    """How a step is cut into programs, and how one reads."""

    block_b: int
    """Rows of a program: 1 multiplies by sums, more by the tensor cores."""
    block_m: int
    """Outputs of a program."""
    block_n: int
    """Inputs whose weights are read at a time."""
    warps: int
    stages: int
    """Blocks of inputs that are on their way through shared memory; 1 reads straight into registers."""


def pack(weight: Tensor, context: Tensor) -> Tensor:
    """`weight [N, 4, M]` and `context [g, m, 4, m]` as `step` reads them: `[g, tiles, N + m, TILE, 4]`.

    What a program multiplies by lies in one piece, inputs first; outputs that fill up a group's last tile are zero.
    """
    groups, size = context.shape[:2]
    inputs = weight.unflatten(-1, (groups, size)).permute(2, 0, 3, 1)
    whole = pad(cat([inputs, context.transpose(-1, -2)], dim=1), (0, 0, 0, -size % TILE))
    tiles: Tensor = whole.unflatten(2, (-1, TILE)).transpose(1, 2)
    return tiles.contiguous()


def step(
    x: Tensor,
    matrix: Tensor,
    bias: Tensor,
    h: Tensor,
    c: Tensor,
    out: tuple[Tensor, Tensor] | None = None,
    ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`reference.step` of `x [B, N]`, `matrix` by `pack`, `bias [4, M]` and state `[B, M]`, with any strides but its.

    With `ids [B]`, x is a table of which those rows are read. State is float32. Returns h and c after the step, in
    `out` where it is given, which must not overlap with what is read.
    """
    after = out or (h.new_empty(h.shape), c.new_empty(c.shape))
    launch(x, matrix, bias, h, c, after, ids).run()
    return after


def cut(batch: int, groups: int, size: int, bytes_each: int) -> Cut:
    """The cut for a batch, groups of `size` outputs and weights of so many bytes."""
    if batch == 1:
        # All reads of a program, 56 KB of the widest layer of the paper, are on their way before its first sum.
        return Cut(1, TILE, 2048, warps=8, stages=1)
    block_b = power_of_two(batch, 16, MOST_ROWS if bytes_each == 2 else 16)
    block_m = 32
    while block_m > TILE and blocks(batch, block_b) * groups * blocks(size, block_m) < PROGRAMS:
        block_m //= 2
    return Cut(block_b, block_m, 64, warps=4 if block_b == 16 else 8, stages=3)


def launch(
    x: Tensor,
    matrix: Tensor,
    bias: Tensor,
    h: Tensor,
    c: Tensor,
    after: tuple[Tensor, Tensor],
    ids: Tensor | None = None,
) -> Launch:
    """The launch that `step` runs."""
    (batch, outputs), groups, rows = h.shape, matrix.shape[0], matrix.shape[2]
    size = outputs // groups
    chosen = cut(batch, groups, size, matrix.element_size())
    h_after, c_after = after
    arguments = {
        "x": x,
        "ids": x if ids is None else ids,
        "matrix": matrix,
        "bias": bias,
        "h": h,
        "c": c,
        "h_after": h_after,
        "c_after": c_after,
        "batch": batch,
        "ids_row": 1 if ids is None else ids.stride(0),
        "x_row": x.stride(0),
        "x_column": x.stride(1),
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
        "LOOKUP": int(ids is not None),
        "BIAS_GATE": bias.stride(0),
        "BIAS_COLUMN": bias.stride(1),
        "INPUTS": rows - size,
        "SIZE": size,
        "TILE": matrix.shape[3],
        "BLOCK_B": chosen.block_b,
        "BLOCK_N": power_of_two(rows, 16, chosen.block_n),
        "BLOCK_M": chosen.block_m,
        "STAGES": chosen.stages,
    }
    grid = (blocks(size, chosen.block_m), groups, blocks(batch, chosen.block_b))
    return Launch(_step, grid, arguments, constants, warps=chosen.warps, stages=chosen.stages)


@triton.jit
def _vectors(x, x_rows, x_column, h, h_rows, h_column, n, present, INPUTS: tl.constexpr, SIZE: tl.constexpr):
    """Numbers n of vectors that are those of x, then those of a group's h; in the type of the weights, zero beyond."""
    of_x, of_h = n < INPUTS, (n >= INPUTS) & (n < INPUTS + SIZE)
    left = tl.load(x + x_rows + n * x_column, mask=present & of_x, other=0.0)
    right = tl.load(h + h_rows + (n - INPUTS) * h_column, mask=present & of_h, other=0.0)
    return left.to(tl.float32) + right


@triton.jit(do_not_specialize=["batch"])
def _step(
    x,
    ids,
    matrix,
    bias,
    h,
    c,
    h_after,
    c_after,
    batch,
    ids_row,
    x_row,
    x_column,
    h_row,
    h_column,
    c_row,
    c_column,
    h_after_row,
    h_after_column,
    c_after_row,
    c_after_column,
    LOOKUP: tl.constexpr,
    BIAS_GATE: tl.constexpr,
    BIAS_COLUMN: tl.constexpr,
    INPUTS: tl.constexpr,
    SIZE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
):
    tile, group = tl.program_id(0), tl.program_id(1)
    rows = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = rows < batch
    lane = tl.arange(0, 4 * BLOCK_M)
    piece = tile * (BLOCK_M // TILE) + lane // (4 * TILE)
    stored = piece < tl.cdiv(SIZE, TILE)
    first = matrix + tl.cast(group, tl.int64) * (tl.cdiv(SIZE, TILE) * (INPUTS + SIZE) * 4 * TILE)
    lanes = first + (piece * ((INPUTS + SIZE) * 4 * TILE) + lane % (4 * TILE))[None, :]
    h_group = h + group * SIZE * h_column
    if BLOCK_B == 1:
        read = tl.load(ids) if LOOKUP else 0
        # Still to be summed over its first axis, which needs no tensor core.
        total = tl.zeros((BLOCK_N, 4 * BLOCK_M), tl.float32)
    else:
        read = tl.load(ids + rows * ids_row, mask=present, other=0) if LOOKUP else rows
        total = tl.zeros((BLOCK_B, 4 * BLOCK_M), tl.float32)
    for start in tl.range(0, INPUTS + SIZE, BLOCK_N, num_stages=STAGES):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < INPUTS + SIZE)[:, None]
        weights = tl.load(lanes + n[:, None] * (4 * TILE), mask=inside & stored[None, :], other=0.0)
        if BLOCK_B == 1:
            vector = _vectors(x, read * x_row, x_column, h_group, 0, h_column, n, True, INPUTS, SIZE)
            total += vector.to(weights.dtype).to(tl.float32)[:, None] * weights.to(tl.float32)
        else:
            vectors = _vectors(
                x,
                (read * x_row)[:, None],
                x_column,
                h_group,
                (rows * h_row)[:, None],
                h_column,
                n[None, :],
                present[:, None],
                INPUTS,
                SIZE,
            )
            total = tl.dot(vectors.to(weights.dtype), weights, total, input_precision="ieee")
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
