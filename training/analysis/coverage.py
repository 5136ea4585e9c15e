"""Gradient coverage: over how many features of how many words the gradient of a prediction spreads (Table 2b).

Boundary: gradients in, one number out.
"""

from __future__ import annotations

from torch import Tensor

THRESHOLD = 0.01
"""Share of a model's largest |gradient| that an entry must exceed to count."""


def coverage(gradients: Tensor) -> float:
    """Share of the entries of `gradients [n, E]` whose size exceeds `THRESHOLD` of the largest; 0 where all are 0.

    The paper shows coverage and gives no number for it; this one is ours.
    """
    sizes = gradients.abs()
    return (sizes > THRESHOLD * sizes.max()).double().mean().item()
