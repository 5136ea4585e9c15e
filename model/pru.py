"""The Pyramidal Recurrent Unit: cell, layer, stack. This file is the specification every fast form is tested against.

Boundary: vectors and state in, vectors and state out; words, softmax and training live elsewhere.
State is explicit: a layer's is the pair (h, c), a stack's one packed row `[h1, c1, h2, c2, ...]` a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from model.config import ModelConfig
from model.dropout import Dropout, drop
from model.mogrifier import Mogrifier
from model.recurrence import grouped_recurrence
from model.transforms import GroupedTransform, LinearTransform, build_transform

State = tuple[Tensor, Tensor]
"""Hidden vector h and cell vector c of one layer, each `[B, M]`."""


class PRUCell(nn.Module):
    """One step of one layer (Eq. 5 and 6), after `mogrifier_rounds` of gating between input and context."""

    def __init__(self, inputs: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.input = build_transform(config.input_transform, inputs, outputs, config)
        self.context = build_transform(config.context_transform, outputs, outputs, config)
        self.residual = config.residual and inputs == outputs
        self.input_is_linear = config.input_is_linear
        self.mogrifier = Mogrifier(inputs, outputs, config) if config.mogrifier_rounds else None

    def from_input(self, x: Tensor) -> Tensor:
        """The input's part of Eq. 5 for one or many steps: `[..., N]` to `[..., 4, M]`."""
        pre: Tensor = self.input(x)
        return pre + x.unsqueeze(-2) if self.residual else pre

    def step(self, from_input: Tensor, from_context: Tensor, c: Tensor) -> State:
        """Eq. 6, given both parts of Eq. 5, each `[B, 4, M]`, and the cell vector before."""
        i, f, g, o = (from_input + from_context).unbind(-2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c

    def forward(self, x: Tensor, state: State) -> State:
        """Read `x [B, N]`; return the state after it."""
        h, c = state
        if self.mogrifier is not None:
            x, h = self.mogrifier(x, h)
        return self.step(self.from_input(x), self.context(h), c)


class PRULayer(PRUCell):
    """A cell run over time. The input's part is one product for all steps; the recurrence takes its fast form.

    While it trains, `weight_drop` of the context's weights are left out, the same at all steps of a call.
    """

    def __init__(self, inputs: int, outputs: int, config: ModelConfig, weight_drop: float = 0.0) -> None:
        super().__init__(inputs, outputs, config)
        self.weight_drop = weight_drop

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """Read `x [B, T, N]`; return h of every step `[B, T, M]` and the state after the last."""
        parameters = self._context()
        if not reads_at_once(self):
            return self._step_by_step(x, state, parameters)
        # Groups of the state evolve independently: all steps in one call.
        x, bias = x.transpose(0, 1), parameters["bias"]
        if x.is_cuda and self.input_is_linear:
            pre = self._folded(x, bias)
        else:
            pre = self.from_input(x)
            pre = pre + bias.to(pre.dtype)
        h, c = grouped_recurrence(pre, parameters["weight"], *state)
        return h.transpose(0, 1), (h[-1].to(c.dtype), c)

    def _folded(self, x: Tensor, bias: Tensor) -> Tensor:
        """Both biases and the input's part of Eq. 5, `[..., N]` to `[..., 4, M]`, as one product.

        What `from_input` does to the unit vectors is its matrix, sub-sampling and residual folded in. A GPU takes
        longer to read and write what a pyramid's parts give for all steps than to multiply by more numbers.
        """
        unit = torch.cat([torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), x.new_zeros(1, x.shape[-1])])
        images = self.from_input(unit).flatten(1)
        matrix, offset = images[:-1] - images[-1], images[-1] + bias.flatten()
        return torch.addmm(offset, x.flatten(0, -2), matrix).view(*x.shape[:-1], 4, -1)

    def _step_by_step(self, x: Tensor, state: State, context: dict[str, Tensor]) -> tuple[Tensor, State]:
        """The form that every configuration has; `context` holds the context's parameters."""
        h, c = state
        outputs = []
        # Without gating, the input's part of Eq. 5 does not depend on the state.
        for part in (x if self.mogrifier is not None else self.from_input(x)).unbind(1):
            pre = part
            if self.mogrifier is not None:
                gated, h = self.mogrifier(part, h)
                pre = self.from_input(gated)
            h, c = self.step(pre, functional_call(self.context, context, (h,)), c)
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h, c)

    def _context(self) -> dict[str, Tensor]:
        """The context's parameters by name, its matrices with weights dropped while training (Merity et al. 2018)."""
        parameters: dict[str, Tensor] = dict(self.context.named_parameters())
        if not (self.training and self.weight_drop):
            return parameters
        # A bias and the kernels of a convolution have two axes, every matrix of four gates has more.
        return {name: F.dropout(p, self.weight_drop) if p.dim() > 2 else p for name, p in parameters.items()}


def reads_at_once(layer: PRULayer) -> bool:
    """Whether the recurrence of a layer takes its fast form (`model.recurrence`)."""
    return layer.mogrifier is None and isinstance(layer.context, LinearTransform | GroupedTransform)


class PRU(nn.ModuleList):
    """A stack of PRU layers with dropout between them and one packed state row a sequence."""

    def __init__(self, config: ModelConfig, dropout: Dropout = Dropout()) -> None:  # noqa: B008 - frozen
        super().__init__(PRULayer(size.inputs, size.outputs, config, dropout.weight) for size in config.layer_sizes)
        self.config = config
        self.dropout = dropout

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `x [B, T, N]` from `state [B, S]`; return the last layer's output `[B, T, E]` and the new state."""
        after = []
        for index, (layer, before) in enumerate(zip(self, unpack(state, self.config), strict=True)):
            if index and self.training:
                x = drop(x, self.dropout.hidden, locked=self.dropout.locked)
            x, (h, c) = layer(x, before)
            after += [h, c]
        return x, torch.cat(after, dim=-1)


def unpack(state: Tensor, config: ModelConfig) -> list[State]:
    """Cut packed state rows `[B, S]` into each layer's (h, c)."""
    parts = iter(state.split([m for size in config.layer_sizes for m in (size.outputs, size.outputs)], dim=-1))
    return list(zip(parts, parts, strict=True))
