"""Saliency: how much each word of a sequence matters to what a model predicts after it (Table 2a).

Boundary: gradients in, a number for each word out.
"""

from __future__ import annotations

from torch import Tensor


def saliency(gradients: Tensor) -> Tensor:
    """Squared norm of each word's gradient: `[..., n]` from `[..., n, E]` (Section 4.3)."""
    return gradients.square().sum(-1)


def normalised(saliencies: Tensor) -> Tensor:
    """Saliencies `[n]` as shares of the largest; zeros where all of them are."""
    largest = saliencies.max()
    return saliencies / largest if largest > 0 else saliencies
