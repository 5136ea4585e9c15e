"""The functions a packed model is computed by: the fused kernels, or their plain references.

Boundary: chooses between modules, and imports Triton only where its kernels are chosen.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.errors import EngineError
from model.kernels import reference


class Step(Protocol):
    """`reference.step` that writes h and c after it into `out`."""

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor, context: Tensor, h: Tensor, c: Tensor, out: tuple[Tensor, Tensor]
    ) -> object: ...


class Sequence(Protocol):
    """`reference.sequence`."""

    def __call__(
        self, pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class LogProbabilities(Protocol):
    """`reference.log_probabilities`."""

    def __call__(self, hidden: Tensor, table: Tensor, bias: Tensor) -> Tensor: ...


class Score(Protocol):
    """`reference.score`."""

    def __call__(self, hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]: ...


class TopK(Protocol):
    """`reference.top_k`."""

    def __call__(self, hidden: Tensor, table: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]: ...


class Forms(NamedTuple):
    """One implementation of each part. Columns of a group are padded to a multiple of `alignment`."""

    step: Step
    sequence: Sequence
    log_probabilities: LogProbabilities
    score: Score
    top_k: TopK
    alignment: int


def plain() -> Forms:
    """The references, on any device."""

    def step(
        x: Tensor, weight: Tensor, bias: Tensor, context: Tensor, h: Tensor, c: Tensor, out: tuple[Tensor, Tensor]
    ) -> None:
        for place, value in zip(out, reference.step(x, weight, bias, context, h, c), strict=True):
            place.copy_(value)

    return Forms(step, reference.sequence, reference.log_probabilities, reference.score, reference.top_k, alignment=1)


def fused() -> Forms:
    """The kernels; `EngineError` where Triton is not installed: without it this engine would be slower than others."""
    try:
        from model.kernels import decode, head, sequence  # noqa: PLC0415 - Triton comes with CUDA builds of torch only
    except ImportError as error:
        raise EngineError(
            f"the fused kernels cannot be loaded ({error}); install triton, or use the torchscript engine"
        ) from None
    # With 8 columns of half precision, the gates of a tile start at a multiple of 16 bytes: what one load can read.
    return Forms(decode.step, sequence.sequence, head.log_probabilities, head.score, head.top_k, alignment=8)


def forms_for(device: torch.device) -> Forms:
    """The kernels on a GPU, the references elsewhere."""
    return fused() if device.type == "cuda" else plain()
