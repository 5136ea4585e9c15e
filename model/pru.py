"""The Pyramidal Recurrent Unit: cell, layer, stack. This file is the specification every fast form is tested against.

Boundary: vectors and state in, vectors and state out; words, softmax and training live elsewhere.
State is explicit: a layer's is the pair (h, c), a stack's one packed row `[h1, c1, h2, c2, ...]` a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.recurrence import grouped_recurrence
from model.transforms import GroupedTransform, LinearTransform, build_transform

State = tuple[Tensor, Tensor]
"""Hidden vector h and cell vector c of one layer, each `[B, M]`."""


class PRUCell(nn.Module):
    """One step of one layer (Eq. 5 and 6)."""

    def __init__(self, inputs: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.input = build_transform(config.input_transform, inputs, outputs, config)
        self.context = build_transform(config.context_transform, outputs, outputs, config)
        self.residual = config.residual and inputs == outputs

    def from_input(self, x: Tensor) -> Tensor:
        """The input's part of Eq. 5 for one or many steps: `[..., N]` to `[..., 4, M]`."""
        pre: Tensor = self.input(x)
        return pre + x.unsqueeze(-2) if self.residual else pre

    def step(self, from_input: Tensor, state: State) -> State:
        """Eq. 6, given the input's part of Eq. 5 `[B, 4, M]` and the state before."""
        h, c = state
        i, f, g, o = (from_input + self.context(h)).unbind(-2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c

    def forward(self, x: Tensor, state: State) -> State:
        """Read `x [B, N]`; return the state after it."""
        return self.step(self.from_input(x), state)


class PRULayer(PRUCell):
    """A cell run over time. The input's part is one product for all steps; the recurrence takes its fast form."""

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """Read `x [B, T, N]`; return h of every step `[B, T, M]` and the state after the last."""
        pre = self.from_input(x).transpose(0, 1)
        context = self.context
        if isinstance(context, LinearTransform | GroupedTransform):
            # Groups of the state evolve independently: all steps in one call.
            h, c = grouped_recurrence(pre + context.bias.to(pre.dtype), context.weight, *state)
            return h.transpose(0, 1), (h[-1].to(c.dtype), c)
        outputs = []
        for part in pre:
            state = self.step(part, state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state


class PRU(nn.ModuleList):
    """A stack of PRU layers with dropout between them and one packed state row a sequence."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__(PRULayer(size.inputs, size.outputs, config) for size in config.layer_sizes)
        self.config = config
        self.rate = dropout

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `x [B, T, N]` from `state [B, S]`; return the last layer's output `[B, T, E]` and the new state."""
        after = []
        for index, (layer, before) in enumerate(zip(self, unpack(state, self.config), strict=True)):
            if index:
                x = F.dropout(x, self.rate, self.training)
            x, (h, c) = layer(x, before)
            after += [h, c]
        return x, torch.cat(after, dim=-1)


def unpack(state: Tensor, config: ModelConfig) -> list[State]:
    """Cut packed state rows `[B, S]` into each layer's (h, c)."""
    parts = iter(state.split([m for size in config.layer_sizes for m in (size.outputs, size.outputs)], dim=-1))
    return list(zip(parts, parts, strict=True))
