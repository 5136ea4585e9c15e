"""The fast form of a PRU layer's recurrence: g independent LSTMs advanced together, one batched product a step.

Boundary: gate pre-activations of the whole sequence in, outputs of the whole sequence out. It holds only for a linear
or grouped context transform, where group j of the state depends on group j alone; `model.pru.PRUCell` is the
specification it is tested against (values, final state and gradients).

The backward pass is written out because the generic one stores and re-reads every intermediate of every step: here a
step saves its four gates, c and h, and the weight's gradient is one product over all steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class GroupedRecurrence(torch.autograd.Function):
    """Run g LSTMs of size m = M / g over T steps.

    `forward(pre, weight, h0, c0) -> (h, c)`: `pre [T, B, 4, M]` holds the gates' pre-activations without the
    context's product, in the order i, f, g, o; `weight [4, g, m, m]` is the context's; `h0`, `c0` `[B, M]`.
    Returns h of every step `[T, B, M]` and the last c `[B, M]`. Products run in the dtype of `pre`, c is kept in the
    dtype of `c0`.
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, weight: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
        steps, batch, _, size = pre.shape
        groups, m = weight.shape[1], weight.shape[2]
        # [g, m_in, 4 * m_out]: one batched product gives all four gates of all groups.
        context = weight.permute(1, 3, 0, 2).reshape(groups, m, 4 * m).to(pre.dtype)
        gates = torch.empty(pre.shape, dtype=pre.dtype, device=pre.device)
        h = torch.empty(steps + 1, batch, size, dtype=pre.dtype, device=pre.device)
        c = torch.empty(steps + 1, batch, size, dtype=c0.dtype, device=pre.device)
        h[0], c[0] = h0, c0
        for t in range(steps):
            product = torch.bmm(h[t].view(batch, groups, m).transpose(0, 1), context)
            grouped = product.view(groups, batch, 4, m).permute(1, 2, 0, 3)
            torch.add(pre[t].view(batch, 4, groups, m), grouped, out=gates[t].view(batch, 4, groups, m))
            i, f, g, o = gates[t].unbind(1)
            gates[t][:, :2].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
            torch.mul(o, torch.tanh(c[t + 1]), out=h[t + 1])
        ctx.save_for_backward(gates, h, c, context)
        ctx.dtypes = weight.dtype, h0.dtype
        return h[1:], c[steps]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad_h, grad_c = grad_outputs
        gates, h, c, context = ctx.saved_tensors
        steps, batch, _, size = gates.shape
        groups, m = context.shape[0], context.shape[1]
        back = context.transpose(1, 2)
        grad_pre = torch.empty_like(gates)
        dh = torch.zeros(batch, size, dtype=c.dtype, device=c.device)
        dc = grad_c.clone()
        for t in reversed(range(steps)):
            i, f, g, o = gates[t].unbind(1)
            dh = dh + grad_h[t]
            tanh_c = torch.tanh(c[t + 1])
            dc = dc + dh * o * (1 - tanh_c * tanh_c)
            out = grad_pre[t]
            out[:, 0] = dc * g * (i * (1 - i))
            out[:, 1] = dc * c[t] * (f * (1 - f))
            out[:, 2] = dc * i * (1 - g * g)
            out[:, 3] = dh * tanh_c * (o * (1 - o))
            dc = dc * f
            by_group = out.view(batch, 4, groups, m).permute(2, 0, 1, 3).reshape(groups, batch, 4 * m)
            dh = torch.bmm(by_group, back).transpose(0, 1).reshape(batch, size)
        before = h[:steps].reshape(steps * batch, groups, m).permute(1, 2, 0)
        after = grad_pre.view(steps * batch, 4, groups, m).permute(2, 0, 1, 3).reshape(groups, steps * batch, 4 * m)
        grad_weight = torch.bmm(before, after).view(groups, m, 4, m).permute(2, 0, 3, 1)
        weight_dtype, h_dtype = ctx.dtypes
        return grad_pre, grad_weight.to(weight_dtype), dh.to(h_dtype), dc


def grouped_recurrence(pre: Tensor, weight: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
    """`GroupedRecurrence` as a function; `weight` may be a linear context's `[4, M, M]`, which is one group."""
    if weight.dim() == 3:
        weight = weight.unsqueeze(1)
    if pre.is_cuda and pre.dtype != torch.float64:
        return _on_gpu(pre, weight, h0, c0)
    if not torch.is_grad_enabled():
        h, c = grouped_inference(pre, weight, h0, c0)
        return h, c[-1]
    h, c = GroupedRecurrence.apply(pre, weight, h0, c0)  # type: ignore[no-untyped-call]
    return h, c


def _on_gpu(pre: Tensor, weight: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
    """The fused forms, which need Triton. Without gradients products are of half precision, summed in float32.

    It is `pre`'s, or float16 where that is float32: h is below 1, so that rounding it moves it by at most 2^-12.
    """
    if torch.is_grad_enabled():
        from model.kernels.recurrence import FusedRecurrence  # noqa: PLC0415 - Triton comes with CUDA builds only

        h, c = FusedRecurrence.apply(pre, weight, h0, c0)  # type: ignore[no-untyped-call]
        return h, c
    from model.kernels.persistent import grouped_sequence  # noqa: PLC0415 - what it loads is for GPUs alone

    half = torch.float16 if pre.dtype == torch.float32 else pre.dtype
    lengths = torch.full((pre.shape[1],), pre.shape[0], dtype=torch.int32, device=pre.device)
    context = weight.permute(1, 3, 0, 2).to(half).contiguous()
    h, _, c = grouped_sequence(pre.transpose(0, 1), context, h0.float(), c0.float(), lengths)
    return h.transpose(0, 1).to(pre.dtype), c.to(c0.dtype)


def grouped_inference(pre: Tensor, weight: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The same without gradients: h and c of every step, each `[T, B, M]`. TorchScript knows all that is used.

    The weight is read where it lies, one product a gate and group: to join the four gates' takes a copy, which costs
    several times as much as one step of one sequence.
    """
    if weight.dim() == 3:
        weight = weight.unsqueeze(1)
    steps, batch, size = pre.shape[0], pre.shape[1], pre.shape[3]
    groups, m = weight.shape[1], weight.shape[2]
    context = weight.to(pre.dtype).flatten(0, 1).transpose(1, 2)
    pre = pre.view(steps, batch, 4, groups, m).permute(0, 2, 3, 1, 4).reshape(steps, 4 * groups, batch, m)
    h = h.to(pre.dtype).view(batch, groups, m).transpose(0, 1)
    c = c.view(batch, groups, m).transpose(0, 1)
    hs: list[Tensor] = []
    cs: list[Tensor] = []
    for t in range(steps):
        i, f, g, o = torch.baddbmm(pre[t], h.repeat(4, 1, 1), context).view(4, groups, batch, m).unbind(0)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = (torch.sigmoid(o) * torch.tanh(c)).to(pre.dtype)
        hs.append(h)
        cs.append(c)
    shape = (steps, batch, size)
    return torch.stack(hs).transpose(1, 2).reshape(shape), torch.stack(cs).transpose(1, 2).reshape(shape)
