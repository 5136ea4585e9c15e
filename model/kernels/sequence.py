"""The recurrence of one layer over all steps in one launch: one program a group and a few rows, which loops over time.

Boundary: tensors of one device in, new tensors out; `model.kernels.reference.sequence` is what it computes. Groups are
independent, so no program waits for another: a program writes its group's h of a step to the output and reads it back
from there in the next one, behind a barrier of its own threads. It needs Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from model.kernels.launch import Launch, blocks, power_of_two
from model.kernels.tiles import gating, lane_offsets, lanes_inside, product


def sequence(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.sequence` with any strides: `pre [B, T, 4, M]`, `context`, state `[B, M]`, `lengths [B]` (0 to T).

    Columns of a group may be padded: `pre [B, T, 4, g, p]` and `context [g, m, 4, p]` for a p above m, of which the
    last ones are not used. `pre` and state are float32. The h of every step `[B, T, M]` that is returned has time
    outermost in memory.
    """
    batch, steps = pre.shape[:2]
    outputs = h.new_empty(steps + 1, batch, h.shape[1])
    after = h.new_empty(h.shape), c.new_empty(c.shape)
    launch(pre, context, h, c, lengths, outputs, after).run()
    return outputs[1:].transpose(0, 1), *after


def launch(
    pre: Tensor,
    context: Tensor,
    h: Tensor,
    c: Tensor,
    lengths: Tensor,
    outputs: Tensor,
    after: tuple[Tensor, Tensor],
) -> Launch:
    """The launch that `sequence` runs; `outputs [T + 1, B, M]` begin with a place for the h before the first step."""
    batch, steps = pre.shape[:2]
    groups, size, _, columns = context.shape
    if pre.dim() == 4:
        pre = pre.unflatten(-1, (groups, size))
    h_after, c_after = after
    # Each of 256 threads has outputs of its own: had two the same, one might read a cell that the other has replaced.
    block_b, block_m = 16, 32
    arguments = {
        "pre": pre,
        "context": context,
        "h": h,
        "c": c,
        "lengths": lengths,
        "outputs": outputs,
        "h_after": h_after,
        "c_after": c_after,
        "batch": batch,
        "steps": steps,
        "pre_row": pre.stride(0),
        "pre_step": pre.stride(1),
        "pre_group": pre.stride(3),
        "context_group": context.stride(0),
        "context_row": context.stride(1),
        "h_row": h.stride(0),
        "h_column": h.stride(1),
        "c_row": c.stride(0),
        "c_column": c.stride(1),
        "length_row": lengths.stride(0),
    }
    constants = {
        "PRE_GATE": pre.stride(2),
        "PRE_COLUMN": pre.stride(4),
        "CONTEXT_GATE": context.stride(2),
        "CONTEXT_COLUMN": context.stride(3),
        "GROUPS": groups,
        "SIZE": size,
        "COLUMNS": columns,
        "BLOCK_B": block_b,
        "BLOCK_N": power_of_two(size, 16, 64),
        "BLOCK_M": block_m,
    }
    stages = 4 if context.element_size() == 2 else 2
    return Launch(_sequence, (groups, blocks(batch, block_b)), arguments, constants, warps=8, stages=stages)


@triton.jit(do_not_specialize=["batch", "steps"])
def _sequence(
    pre,
    context,
    h,
    c,
    lengths,
    outputs,
    h_after,
    c_after,
    batch,
    steps,
    pre_row,
    pre_step,
    pre_group,
    context_group,
    context_row,
    h_row,
    h_column,
    c_row,
    c_column,
    length_row,
    PRE_GATE: tl.constexpr,
    PRE_COLUMN: tl.constexpr,
    CONTEXT_GATE: tl.constexpr,
    CONTEXT_COLUMN: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    group = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = rows < batch
    length = tl.load(lengths + rows * length_row, mask=present, other=0)
    longest = tl.max(length, 0)
    # Outputs and the state after are contiguous: a row is all groups of h or c.
    row_offsets = rows * (GROUPS * SIZE) + group * SIZE
    output_step = tl.cast(batch, tl.int64) * (GROUPS * SIZE)
    pre_offsets = rows.to(tl.int64) * pre_row + group * pre_group
    for tile in range(0, tl.cdiv(SIZE, BLOCK_M)):
        column = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = present[:, None] & (column < SIZE)[None, :]
        there = row_offsets[:, None] + column[None, :]
        from_column = (group * SIZE + column)[None, :]
        h_first = tl.load(h + rows[:, None] * h_row + from_column * h_column, mask=inside, other=0.0)
        c_first = tl.load(c + rows[:, None] * c_row + from_column * c_column, mask=inside, other=0.0)
        tl.store(outputs + there, h_first, mask=inside)
        tl.store(h_after + there, h_first, mask=inside)
        tl.store(c_after + there, c_first, mask=inside)
    for step in range(0, longest):
        # What other threads of this program wrote in the step before is read in this one.
        tl.debug_barrier()
        before = outputs + step * output_step
        for tile in range(0, tl.cdiv(SIZE, BLOCK_M)):
            used = lanes_inside(tile, SIZE, BLOCK_M)
            lanes = pre_offsets[:, None] + lane_offsets(tile, PRE_GATE, PRE_COLUMN, BLOCK_M)[None, :]
            total = tl.load(
                pre + tl.cast(step, tl.int64) * pre_step + lanes, mask=present[:, None] & used[None, :], other=0.0
            )
            total = product(
                total,
                before,
                row_offsets,
                present,
                1,
                context + group * context_group,
                context_row,
                lane_offsets(tile, CONTEXT_GATE, CONTEXT_COLUMN, BLOCK_M),
                lanes_inside(tile, COLUMNS, BLOCK_M),
                SIZE,
                BLOCK_B,
                BLOCK_N,
            )
            column = tile * BLOCK_M + tl.arange(0, BLOCK_M)
            inside = present[:, None] & (column < SIZE)[None, :]
            there = row_offsets[:, None] + column[None, :]
            c_before = tl.load(c_after + there, mask=inside, other=0.0)
            h_new, c_new = gating(total, c_before, BLOCK_B, BLOCK_M)
            reads = (step < length)[:, None]
            tl.store(before + output_step + there, tl.where(reads, h_new, 0.0), mask=inside)
            tl.store(h_after + there, h_new, mask=inside & (step == length - 1)[:, None])
            tl.store(c_after + there, c_new, mask=inside & reads)
    for step in range(longest, steps):
        for tile in range(0, tl.cdiv(SIZE, BLOCK_M)):
            column = tile * BLOCK_M + tl.arange(0, BLOCK_M)
            there = row_offsets[:, None] + column[None, :]
            zeros = tl.zeros((BLOCK_B, BLOCK_M), tl.float32)
            inside = present[:, None] & (column < SIZE)[None, :]
            tl.store(outputs + (step + 1) * output_step + there, zeros, mask=inside)
