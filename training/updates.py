"""Updates of a model: gradients of the objective, their clip, and the optimiser's step.

Boundary: one batch and a learning rate in, its loss out; parameters, optimiser and carried state change. Batches,
epochs and means of weights are `training.trainer`'s.

On a GPU an update is a thousand short kernels, which take longer to launch than to run. So it is captured as a CUDA
graph, one for each length of batch, and launched as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.objective import Outcome
from training.recipe import Recipe


class Updates:
    """Optimiser steps of one run; `state [B, S]` is what the next batch goes on from."""

    def __init__(self, objective: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, state: Tensor) -> None:
        self.objective, self._optimizer, self._clip = objective, optimizer, recipe.clip
        self.state = state

    def restart(self, state: Tensor) -> None:
        """Go on from another state."""
        self.state.copy_(state)

    def make(self, inputs: Tensor, targets: Tensor, rate: float) -> Tensor:
        """Read `inputs [B, T]` and `targets [B, T]`; the mean loss before the update, in nats a token."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        return self._make(inputs, targets)

    def _make(self, inputs: Tensor, targets: Tensor) -> Tensor:
        outcome: Outcome = self.objective(inputs, targets, self.state)
        self._optimizer.zero_grad()
        outcome.objective.backward()
        nn.utils.clip_grad_norm_(self.objective.parameters(), self._clip)
        self._optimizer.step()
        self.state.copy_(outcome.state.detach())
        return outcome.loss


@dataclass(frozen=True)
class _Captured:
    """A graph and the memory that it reads its batch from and writes its loss to."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    targets: Tensor
    loss: Tensor


class GraphedUpdates(Updates):
    """The same on a GPU. The first batch of a length is computed plainly, which readies what a capture may not."""

    def __init__(self, objective: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, state: Tensor) -> None:
        super().__init__(objective, optimizer, recipe, state)
        self._stream = torch.cuda.Stream(state.device)
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: set[int] = set()
        self._graphs: dict[int, _Captured] = {}

    def _make(self, inputs: Tensor, targets: Tensor) -> Tensor:
        # Captured or not, all is done in one stream: autograd remembers in which a gradient was last added to.
        current, length = torch.cuda.current_stream(), inputs.shape[1]
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            if length not in self._seen:
                self._seen.add(length)
                loss = super()._make(inputs, targets)
            else:
                if length not in self._graphs:
                    self._graphs[length] = self._capture(inputs, targets)
                captured = self._graphs[length]
                captured.inputs.copy_(inputs)
                captured.targets.copy_(targets)
                captured.graph.replay()
                loss = captured.loss
        current.wait_stream(self._stream)
        return loss

    def _capture(self, inputs: Tensor, targets: Tensor) -> _Captured:
        inputs, targets = inputs.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        # Gradients of a graph lie in its memory; none from elsewhere may be added to.
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = super()._make(inputs, targets)
        self._optimizer.zero_grad(set_to_none=True)
        return _Captured(graph, inputs, targets, loss)
