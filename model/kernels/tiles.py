"""Pieces that the kernels of a step and of a sequence share: a product summed in float32, and the gating.

Boundary: Triton code for a tile of outputs, called from kernels. A tile of `BLOCK_M` outputs is 4 * `BLOCK_M` lanes, an
output's four gates beside each other (lane = 4 * output + gate), so that one product makes all four and no program
waits for another's.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lane_offsets(tile, GATE: tl.constexpr, COLUMN: tl.constexpr, BLOCK_M: tl.constexpr):
    """Where the lanes of a tile are, for gates and columns this far apart."""
    lane = tl.arange(0, 4 * BLOCK_M)
    if COLUMN == 4 * GATE:
        # The compiler sees that these are neighbours, and reads 16 bytes at a time.
        return (tile * 4 * BLOCK_M + lane) * GATE
    else:  # noqa: RET505 - Triton compiles one branch of the two
        return (tile * BLOCK_M + lane // 4) * COLUMN + lane % 4 * GATE


@triton.jit
def lanes_inside(tile, COLUMNS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Which lanes of a tile are of one of the `COLUMNS`."""
    return tile * 4 * BLOCK_M + tl.arange(0, 4 * BLOCK_M) < 4 * COLUMNS


@triton.jit
def product(
    total,
    vectors,
    row_offsets,
    rows_inside,
    vector_column,
    matrix,
    matrix_row,
    lanes,
    lanes_inside,
    SIZE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Add the product of `vectors [B, SIZE]` and the tile's lanes of `matrix [SIZE, lanes]` to `total`.

    Vectors are rounded to the matrix's type. `total` is `[BLOCK_B, lanes]`; of one vector it is `[BLOCK_N, lanes]`,
    still to be summed over its first axis, which needs no tensor core.
    """
    for start in range(0, SIZE, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < SIZE
        weights = tl.load(
            matrix + n[:, None] * matrix_row + lanes[None, :], mask=inside[:, None] & lanes_inside[None, :], other=0.0
        )
        x = tl.load(
            vectors + row_offsets[:, None] + n[None, :] * vector_column,
            mask=rows_inside[:, None] & inside[None, :],
            other=0.0,
        ).to(weights.dtype)
        if BLOCK_B == 1:
            total += tl.trans(x).to(tl.float32) * weights.to(tl.float32)
        else:
            total = tl.dot(x, weights, total, input_precision="ieee")
    return total


@triton.jit
def gating(pre, c, BLOCK_B: tl.constexpr, BLOCK_M: tl.constexpr):
    """Eq. 6: pre-activations `[BLOCK_B, 4 * BLOCK_M]` and c before; h and c `[BLOCK_B, BLOCK_M]` after."""
    input_and_cell, forget_and_output = tl.split(tl.reshape(pre, (BLOCK_B, BLOCK_M, 2, 2)))
    i, g = tl.split(input_and_cell)
    f, o = tl.split(forget_and_output)
    c = tl.sigmoid(f) * c + tl.sigmoid(i) * tanh(g)
    return tl.sigmoid(o) * tanh(c), c


@triton.jit
def tanh(x):
    """Within 1.2e-7 of it; the library's own cannot be interpreted on a CPU."""
    return 2 * tl.sigmoid(2 * x) - 1
