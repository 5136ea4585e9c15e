"""The plain forms that every fused kernel is tested against: a decode step, a sequence, and the softmax layer.

Boundary: tensors in, tensors out, on any device. Products and sums are in the type of the weights' arithmetic that the
caller chose; state, gates and log-probabilities are float32 (float64 where all else is). Words, files and the choice of
a kernel live elsewhere.

Layouts, for N inputs, M outputs and g groups of m = M / g: an input matrix is `[N, 4, M]` with sub-sampling and
residual folded in, a context `[g, m, 4, m]` (group, from, gate, to), gates in the order i, f, g, o of
`model.config.GATES`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def context_product(h: Tensor, context: Tensor) -> Tensor:
    """Eq. 4 for all gates: `h [B, M]` and `context [g, m, 4, m]` to `[B, 4, M]`, summed in float32."""
    groups, m = context.shape[:2]
    grouped = torch.einsum("bgn,gnvm->bvgm", wide(h.to(context.dtype)).unflatten(-1, (groups, m)), wide(context))
    return grouped.flatten(-2)


def gating(pre: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 6: pre-activations `[B, 4, M]` and the cell vector `[B, M]` before; h and c `[B, M]` after."""
    i, f, g, o = pre.unbind(-2)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def step(x: Tensor, weight: Tensor, bias: Tensor, context: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of one layer (Eq. 5 and 6): `x [B, N]`, `weight [N, 4, M]`, `bias [4, M]`, `context`, state `[B, M]`."""
    pre = torch.einsum("bn,nvm->bvm", wide(x.to(weight.dtype)), wide(weight)) + bias
    return gating(pre + context_product(h, context), c)


def sequence(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The recurrence of one layer over T steps, given the input's part of Eq. 5 with its bias.

    `pre [B, T, 4, M]`, `context [g, m, 4, m]`, `h`, `c` `[B, M]`, `lengths [B]` (0 to T). Returns h of every step
    `[B, T, M]`, zero beyond a row's length, and h and c after each row's last step.
    """
    outputs = []
    for t in range(pre.shape[1]):
        h_next, c_next = gating(wide(pre[:, t]) + context_product(h, context), c)
        inside = (t < lengths)[:, None]
        h, c = torch.where(inside, h_next, h), torch.where(inside, c_next, c)
        outputs.append(torch.where(inside, h_next, 0))
    return torch.stack(outputs, dim=1) if outputs else h.new_zeros(len(h), 0, h.shape[1]), h, c


def log_probabilities(hidden: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Log-probability of every word `[R, V]` from `hidden [R, E]`, `table [V, E]` and `bias [V]`."""
    logits = wide(hidden.to(table.dtype)) @ wide(table).t() + bias
    return torch.log_softmax(logits, dim=-1)


def score(hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and rank `[R]` of `targets [R]`: a rank is 1 + the number of words strictly likelier."""
    likely = log_probabilities(hidden, table, bias)
    values = likely.gather(1, targets[:, None].long())
    return values[:, 0], (likely > values).sum(dim=1, dtype=torch.int32) + 1


def top_k(hidden: Tensor, table: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and log-probabilities `[R, k]` of the k likeliest words, best first, ties by lower id."""
    likely = log_probabilities(hidden, table, bias)
    values, ids = torch.sort(likely, dim=1, descending=True, stable=True)
    return ids[:, :k].int(), values[:, :k]


def wide(x: Tensor) -> Tensor:
    """Half precision as float32, in which its products are summed; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
