"""The mean of a model's weights over updates, and when it is time to take it (NT-ASGD, Merity et al. 2018, section 3).

Boundary: parameters and validation figures in, their mean and a yes or no out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """The running mean of parameters, every update counted the same: ASGD without its decay (t0 = 0, lambda = 0)."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self.means: list[Tensor] = []
        """Nothing until the first update is counted."""

    def update(self, count: int) -> None:
        """Take in the parameters as they are, the `count`th that are taken in (from 1)."""
        with torch.no_grad():
            if not self.means:
                self.means = [parameter.detach().clone() for parameter in self._parameters]
            else:
                torch._foreach_lerp_(self.means, self._parameters, 1 / count)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters have their mean for the block, if there is one."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for parameter, mean in zip(self._parameters, self.means, strict=False):
                kept = parameter.clone()
                parameter.copy_(mean)
                mean.copy_(kept)


def stopped_improving(figures: Sequence[float], patience: int) -> bool:
    """Whether the last validation figure is worse than the best of all before the latest `patience` of the earlier."""
    *before, last = figures
    return len(before) > patience and last > min(before[:-patience])
