"""What the tiles of a softmax layer make of a row: its log-sum-exp, and its likeliest words.

Boundary: log-sum-exps and candidates of tiles in, by `model.kernels.head`, one program a row. A log-sum-exp is a sum of
integers, which no order changes, so that every kernel here finds the same to the bit. It needs Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model.kernels.launch import Launch, power_of_two

MOST_MERGED = 1 << 15
"""Most candidates of one row among which one program finds the best."""


def add_up(of_tiles: Tensor, total: Tensor) -> Launch:
    """The launch that makes the log-sum-exps `[R, 1]` of rows from those of their tiles, `[R, tiles]`."""
    rows, tiles = of_tiles.shape
    arguments = {"log_sum_exps": of_tiles, "out": total, "tiles": tiles}
    return Launch(_add_up, (rows,), arguments, {"BLOCK_T": power_of_two(tiles, 16, 1 << 20)}, warps=4, stages=1)


def merge(candidates: Tensor, of_tiles: Tensor, ids: Tensor, values: Tensor) -> Launch:
    """The launch that makes the best `[R, k]` of rows from `candidates [R, tiles, K]`, and their log-probabilities."""
    rows, tiles, most = candidates.shape
    arguments = {
        "candidates": candidates,
        "log_sum_exps": of_tiles,
        "ids": ids,
        "values": values,
        "tiles": tiles,
        "count": tiles * most,
        "k": ids.shape[1],
    }
    constants = {"BLOCK_T": power_of_two(tiles, 16, 1 << 20), "BLOCK_C": power_of_two(tiles * most, 16, MOST_MERGED)}
    # 16 candidates a thread, as far as a program may have threads.
    warps = power_of_two(constants["BLOCK_C"] // 512, 4, 32)
    return Launch(_merge, (rows,), arguments, constants, warps, stages=1)


@triton.jit
def _total(log_sum_exps, row, tiles, BLOCK_T: tl.constexpr):
    """The log-sum-exp of a row from those of its tiles, each added as a multiple of 2**-40."""
    tile = tl.arange(0, BLOCK_T)
    of_tiles = tl.load(log_sum_exps + row.to(tl.int64) * tiles + tile, mask=tile < tiles, other=float("-inf"))
    largest = tl.max(of_tiles, 0)
    parts = (tl.exp(of_tiles - largest) * 1099511627776.0).to(tl.int64)
    return largest + tl.log(tl.sum(parts, 0).to(tl.float32) * (1 / 1099511627776.0))


@triton.jit
def _add_up(log_sum_exps, out, tiles, BLOCK_T: tl.constexpr):
    row = tl.program_id(0)
    tl.store(out + row, _total(log_sum_exps, row, tiles, BLOCK_T))


@triton.jit(do_not_specialize=["k"])
def _merge(candidates, log_sum_exps, ids, values, tiles, count, k, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    row = tl.program_id(0)
    total = _total(log_sum_exps, row, tiles, BLOCK_T)
    candidate = tl.arange(0, BLOCK_C)
    lowest = -0x7FFFFFFFFFFFFFFF
    keys = tl.load(candidates + row.to(tl.int64) * count + candidate, mask=candidate < count, other=lowest)
    for place in range(0, k):
        best = tl.max(keys, 0)
        ordered = (best >> 32).to(tl.int32)
        logit = (ordered ^ (ordered >> 31 & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
        tl.store(ids + row * k + place, 0x7FFFFFFF - (best & 0x7FFFFFFF).to(tl.int32))
        tl.store(values + row * k + place, logit - total)
        keys = tl.where(keys == best, lowest, keys)
