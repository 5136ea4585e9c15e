"""Cross entropy of a tied softmax, computed in chunks of rows so that the full logits never exist.

Boundary: hidden vectors, the decoder's weight and bias, and target ids in; the mean loss out.

For 33,278 words the logits of one batch are larger than the whole model, and reading and writing them several times
costs more than the products. Here a chunk's gradient is made in the forward pass while its probabilities are still in
the cache: two passes over a chunk, three products, and memory for one chunk.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 512
"""Rows a chunk. 512 rows of 33,278 bfloat16 probabilities are 34 MB."""
GPU_ROWS = 8192
"""The same on a GPU, which fewer rows do not fill."""
GPU_ALIGNMENT = 64
"""Words are padded to a multiple of this on a GPU: with rows that start at odd places its products are slow."""


class TiedCrossEntropy(torch.autograd.Function):
    """`forward(hidden [N, E], weight [V, E], bias [V], targets [N]) -> mean loss` in nats a target.

    Products run in the dtype of `hidden`; loss and accumulated gradients have the dtype of `weight`.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        rows, words = len(targets), len(weight)
        w, b = _padded(weight.detach(), bias.detach(), hidden.dtype)
        chunk = _chunk(hidden)
        # Written again by every chunk: fresh memory of this size costs more in page faults than the products.
        buffer = hidden.new_empty(min(rows, chunk), len(w))
        product = torch.empty_like(w)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        grad_bias = torch.zeros_like(bias)
        loss = torch.zeros((), dtype=weight.dtype, device=hidden.device)
        for h, grad_h, target in zip(*(x.split(chunk) for x in (hidden, grad_hidden, targets)), strict=True):
            probabilities = _probabilities(h, w, b, buffer)
            at_target = torch.arange(len(h), device=h.device), target
            of_target = probabilities[at_target]
            loss += _negative_log(of_target.to(weight.dtype)).sum()
            # The gradient of the logits is (probabilities - one hot) / N, made in place; 1 / N is applied last.
            probabilities[at_target] = of_target - 1
            torch.mm(probabilities, w, out=grad_h)
            grad_weight += torch.mm(probabilities.t(), h, out=product)[:words]
            grad_bias += probabilities.sum(dim=0)[:words]
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.rows = rows
        return loss / rows

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scale = grad_outputs[0] / ctx.rows
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        return grad_hidden * scale, grad_weight.mul_(scale), grad_bias.mul_(scale), None


def tied_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of `targets [N]` given `hidden [N, E]`, for a softmax with `weight [V, E]`."""
    loss: Tensor = TiedCrossEntropy.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def negative_log_likelihoods(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each of `targets [N]`, float32 `[N]`, in nats; products in the dtype of `hidden`."""
    w, b = _padded(weight, bias, hidden.dtype)
    chunk = _chunk(hidden)
    buffer = hidden.new_empty(min(len(targets), chunk), len(w))
    of_targets = [
        _probabilities(h, w, b, buffer).gather(1, target[:, None])[:, 0].float()
        for h, target in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return _negative_log(torch.cat(of_targets))


def _chunk(hidden: Tensor) -> int:
    return GPU_ROWS if hidden.is_cuda else ROWS


def _padded(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias in `dtype`; on a GPU with words that have no probability behind the last."""
    weight, bias = weight.to(dtype), bias.to(dtype)
    if not weight.is_cuda:
        return weight, bias
    more = -len(weight) % GPU_ALIGNMENT
    return F.pad(weight, (0, 0, 0, more)), F.pad(bias, (0, more), value=-math.inf)


def _probabilities(hidden: Tensor, weight: Tensor, bias: Tensor, buffer: Tensor) -> Tensor:
    """Softmax of the logits of `hidden [n, E]`, written over the first n rows of `buffer [>= n, V]`."""
    logits = torch.addmm(bias, hidden, weight.t(), out=buffer[: len(hidden)])
    return torch.softmax(logits, dim=-1, out=logits)


def _negative_log(probabilities: Tensor) -> Tensor:
    """-log, of at most 87.5: a probability that underflows to 0 must not make the sum infinite."""
    return probabilities.clamp_min(1e-38).log_().neg_()
