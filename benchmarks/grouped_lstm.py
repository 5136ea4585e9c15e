"""The fast form of a PRU layer on a GPU: every group of the context is a standard LSTM, which cuDNN runs.

Boundary: a sequence and the state before it in, outputs and the state after it out. It holds for a linear or grouped
context and an input transform that is linear; `model.pru.PRUCell` is the specification it is tested against (values,
final state and gradients), on a CPU too, where `model.recurrence` is faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


def grouped_lstm(
    from_input: Callable[[Tensor], Tensor],
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run g LSTMs over `x [B, T, N]`, each reading all of x and its own group of the state.

    `from_input` is the input's part of Eq. 5, `[n, N]` to `[n, 4, M]`; `weight [4, g, m, m]` and `bias [4, M]` are the
    context's, which may also be a linear one's `[4, M, M]`: one group; `h0`, `c0` `[B, M]`. Returns h of every step
    `[B, T, M]` and the last c `[B, M]`.
    """
    if weight.dim() == 3:
        weight = weight.unsqueeze(1)
    # What it does to the unit vectors is its matrix, sub-sampling and residual folded in. These are N rows: as many as
    # a batch of 20 x 70 has in the middle layer of the paper's model.
    inputs = x.shape[2]
    unit = torch.cat([torch.eye(inputs, dtype=x.dtype, device=x.device), x.new_zeros(1, inputs)])
    images = from_input(unit)
    offset = images[-1]
    matrix = (images[:-1] - offset).permute(1, 2, 0)
    groups, m = weight.shape[1], weight.shape[2]
    # Autocast would take float16 for this operator, whatever type it was given.
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    outputs, lasts = [], []
    for j in range(groups):
        part = slice(j * m, (j + 1) * m)
        flat = [
            matrix[:, part].reshape(4 * m, inputs),
            weight[:, j].reshape(4 * m, m),
            offset[:, part].reshape(-1),
            bias[:, part].reshape(-1),
        ]
        before = [state[None, :, part].to(dtype).contiguous() for state in (h0, c0)]
        with torch.autocast(x.device.type, enabled=False), warnings.catch_warnings():
            # The weights are made anew in every call, so they are not in the one block that cuDNN would copy them to.
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk", UserWarning)
            # cuDNN keeps what its backward pass needs where it is told that this is training.
            y, _, c = torch.lstm(
                x.to(dtype), before, [p.to(dtype) for p in flat], True, 1, 0.0, torch.is_grad_enabled(), False, True
            )
        outputs.append(y)
        lasts.append(c[0])
    return torch.cat(outputs, dim=-1), torch.cat(lasts, dim=-1).to(c0.dtype)
