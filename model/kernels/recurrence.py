"""A layer's recurrence as it trains on a GPU: one batched product and one fused kernel a step, forth and back.

Boundary: `model.recurrence.GroupedRecurrence` on a GPU, which is what it is tested against (values, final state and
gradients). It launches a few short kernels a step and never waits for the device: whoever calls it often captures it
in a CUDA graph (`training.updates`), since to launch them one by one takes several times as long. It needs Triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.launch import Launch, blocks
from model.kernels.tiles import tanh

ALIGNMENT = 8
"""Columns of a group are padded to a multiple of this: 16 bytes of half precision, without which products are slow."""
BLOCK = 256
"""Outputs of one program."""


class FusedRecurrence(torch.autograd.Function):
    """`model.recurrence.GroupedRecurrence`, arguments, results and types alike."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, weight: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
        steps, batch, _, size = pre.shape
        groups, m = weight.shape[1], weight.shape[2]
        pre = pre.contiguous()
        context = padded_context(weight, pre.dtype)
        columns = context.shape[1]
        gates = torch.empty_like(pre)
        # Padding stays zero, as its weights are.
        h = pre.new_zeros(steps + 1, batch, groups, columns)
        c = c0.new_empty(steps + 1, batch, size)
        h[0, ..., :m], c[0] = h0.unflatten(-1, (groups, m)), c0
        product = pre.new_empty(groups, batch, 4 * columns)
        for t in range(steps):
            torch.bmm(h[t].transpose(0, 1), context, out=product)
            launch(_forward, groups, m, columns, pre[t], product, c[t], gates[t], c[t + 1], h[t + 1]).run()
        ctx.save_for_backward(gates, h, c, context)
        ctx.m, ctx.dtypes = m, (weight.dtype, h0.dtype)
        return h[1:, ..., :m].reshape(steps, batch, size), c[steps].clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates, h, c, context = ctx.saved_tensors
        steps, batch = gates.shape[:2]
        groups, columns, m = context.shape[0], context.shape[1], ctx.m
        grad_h, dc = grad_outputs[0].contiguous(), grad_outputs[1].clone()
        back = context.transpose(1, 2)
        # The gates' gradient as the layer has it, and as the products take it: a group's padded gates side by side.
        grad_pre, by_group = torch.empty_like(gates), gates.new_zeros(steps, batch, groups, 4 * columns)
        dh = gates.new_zeros(groups, batch, columns)
        for t in reversed(range(steps)):
            arguments = gates[t], c[t], c[t + 1], grad_h[t], dh, dc, grad_pre[t], by_group[t]
            launch(_backward, groups, m, columns, *arguments).run()
            torch.bmm(by_group[t].transpose(0, 1), back, out=dh)
        before = h[:steps].flatten(0, 1).permute(1, 2, 0)
        grad_weight = torch.bmm(before, by_group.flatten(0, 1).transpose(0, 1))
        of_gates = grad_weight.view(groups, columns, 4, columns)[:, :m, :, :m].permute(2, 0, 3, 1)
        weight_dtype, h_dtype = ctx.dtypes
        return grad_pre, of_gates.to(weight_dtype), dh[..., :m].transpose(0, 1).flatten(1).to(h_dtype), dc


def padded_context(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A context `weight [4, g, m (to), m (from)]` as `[g, p (from), 4 * p (to)]`, padded with zeros."""
    groups, m = weight.shape[1], weight.shape[2]
    columns = blocks(m, ALIGNMENT) * ALIGNMENT
    context = weight.new_zeros(groups, columns, 4, columns, dtype=dtype)
    context[:, :m, :, :m] = weight.permute(1, 3, 0, 2)
    return context.flatten(2)


def launch(kernel: Any, groups: int, m: int, columns: int, *tensors: Tensor) -> Launch:
    """A launch of one of the kernels below, for tensors `[B, ...]` in the order of its arguments."""
    batch = tensors[0].shape[0]
    outputs = batch * groups * m
    arguments = {name: tensor for name, tensor in zip(kernel.arg_names, tensors, strict=False)}
    constants = {"GROUPS": groups, "SIZE": m, "COLUMNS": columns, "BLOCK": BLOCK}
    return Launch(kernel, (blocks(outputs, BLOCK),), arguments | {"batch": batch}, constants, warps=4, stages=1)


@triton.jit
def _places(batch, GROUPS: tl.constexpr, SIZE: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Outputs of a program: whether they exist, and where they are in a state, among gates, and in padded forms.

    A state is `[B, M]`, gates are `[B, 4, M]`; padded, a state is `[B, g, p]`, or `[g, B, p]` with groups outermost.
    """
    output = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = output // (GROUPS * SIZE), output % (GROUPS * SIZE)
    group, lane = column // SIZE, column % SIZE
    inside = row < batch
    return inside, output, row * 4 * (GROUPS * SIZE) + column, row * GROUPS + group, group * batch + row, lane


@triton.jit(do_not_specialize=["batch"])
def _forward(
    pre,
    product,
    c_before,
    gates,
    c_after,
    h_after,
    batch,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Eq. 6 from both parts of Eq. 5: `pre [B, 4, M]` and `product [g, B, 4 * p]`."""
    M: tl.constexpr = GROUPS * SIZE
    inside, state, gate, by_row, by_group, lane = _places(batch, GROUPS, SIZE, COLUMNS, BLOCK)
    product += by_group * 4 * COLUMNS + lane
    pre += gate
    gates += gate
    i = tl.load(pre, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(pre + M, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(pre + 2 * M, mask=inside, other=0.0).to(tl.float32)
    o = tl.load(pre + 3 * M, mask=inside, other=0.0).to(tl.float32)
    i = tl.sigmoid(i + tl.load(product, mask=inside, other=0.0).to(tl.float32))
    f = tl.sigmoid(f + tl.load(product + COLUMNS, mask=inside, other=0.0).to(tl.float32))
    g = tanh(g + tl.load(product + 2 * COLUMNS, mask=inside, other=0.0).to(tl.float32))
    o = tl.sigmoid(o + tl.load(product + 3 * COLUMNS, mask=inside, other=0.0).to(tl.float32))
    c = f * tl.load(c_before + state, mask=inside, other=0.0).to(tl.float32) + i * g
    h = o * tanh(c)
    tl.store(gates, i.to(gates.dtype.element_ty), mask=inside)
    tl.store(gates + M, f.to(gates.dtype.element_ty), mask=inside)
    tl.store(gates + 2 * M, g.to(gates.dtype.element_ty), mask=inside)
    tl.store(gates + 3 * M, o.to(gates.dtype.element_ty), mask=inside)
    tl.store(c_after + state, c, mask=inside)
    tl.store(h_after + by_row * COLUMNS + lane, h.to(h_after.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["batch"])
def _backward(
    gates,
    c_before,
    c_after,
    grad_h,
    dh,
    dc,
    grad_pre,
    grouped,
    batch,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Eq. 6 the other way: from the gradients of h (its own, and `dh [g, B, p]` of the next step's product) and c."""
    M: tl.constexpr = GROUPS * SIZE
    inside, state, gate, by_row, by_group, lane = _places(batch, GROUPS, SIZE, COLUMNS, BLOCK)
    gates += gate
    i = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(gates + M, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gates + 2 * M, mask=inside, other=0.0).to(tl.float32)
    o = tl.load(gates + 3 * M, mask=inside, other=0.0).to(tl.float32)
    tanh_c = tanh(tl.load(c_after + state, mask=inside, other=0.0).to(tl.float32))
    of_h = tl.load(grad_h + state, mask=inside, other=0.0).to(tl.float32)
    of_h += tl.load(dh + by_group * COLUMNS + lane, mask=inside, other=0.0).to(tl.float32)
    of_c = tl.load(dc + state, mask=inside, other=0.0).to(tl.float32) + of_h * o * (1 - tanh_c * tanh_c)
    before = tl.load(c_before + state, mask=inside, other=0.0).to(tl.float32)
    tl.store(dc + state, of_c * f, mask=inside)
    of_i = (of_c * g * i * (1 - i)).to(grad_pre.dtype.element_ty)
    of_f = (of_c * before * f * (1 - f)).to(grad_pre.dtype.element_ty)
    of_g = (of_c * i * (1 - g * g)).to(grad_pre.dtype.element_ty)
    of_o = (of_h * tanh_c * o * (1 - o)).to(grad_pre.dtype.element_ty)
    grad_pre += gate
    tl.store(grad_pre, of_i, mask=inside)
    tl.store(grad_pre + M, of_f, mask=inside)
    tl.store(grad_pre + 2 * M, of_g, mask=inside)
    tl.store(grad_pre + 3 * M, of_o, mask=inside)
    grouped += by_row * 4 * COLUMNS + lane
    tl.store(grouped, of_i, mask=inside)
    tl.store(grouped + COLUMNS, of_f, mask=inside)
    tl.store(grouped + 2 * COLUMNS, of_g, mask=inside)
    tl.store(grouped + 3 * COLUMNS, of_o, mask=inside)
