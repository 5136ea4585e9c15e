"""The functions a packed model is computed by: the fused kernels, or their plain references.

Boundary: chooses between modules, and imports Triton only where its kernels are chosen.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.errors import EngineError
from model.kernels import reference


class Pack(Protocol):
    """`weight [N, 4, M]` and `context [g, m, 4, m]` as a step multiplies by them."""

    def __call__(self, weight: Tensor, context: Tensor) -> tuple[Tensor, ...]: ...


class Step(Protocol):
    """`reference.step` of packed matrices that writes h and c after it into `out`.

    With `ids [B]`, x is a table of which those rows are read.
    """

    def __call__(
        self,
        x: Tensor,
        packed: tuple[Tensor, ...],
        bias: Tensor,
        h: Tensor,
        c: Tensor,
        out: tuple[Tensor, Tensor],
        ids: Tensor | None = None,
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
    """One implementation of each part."""

    pack: Pack
    step: Step
    sequence: Sequence
    log_probabilities: LogProbabilities
    score: Score
    top_k: TopK


def plain() -> Forms:
    """The references, on any device."""

    def pack(weight: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        return weight, context

    def step(
        x: Tensor,
        packed: tuple[Tensor, ...],
        bias: Tensor,
        h: Tensor,
        c: Tensor,
        out: tuple[Tensor, Tensor],
        ids: Tensor | None = None,
    ) -> None:
        weight, context = packed
        vectors = x if ids is None else x[ids]
        for place, value in zip(out, reference.step(vectors, weight, bias, context, h, c), strict=True):
            place.copy_(value)

    return Forms(pack, step, reference.sequence, reference.log_probabilities, reference.score, reference.top_k)


def fused() -> Forms:
    """The kernels; `EngineError` where Triton is not installed: without it this engine would be slower than others."""
    try:
        from model.kernels import decode, head, persistent, sequence  # noqa: F401, PLC0415 - only CUDA's torch has Triton
    except ImportError as error:
        raise EngineError(
            f"the fused kernels cannot be loaded ({error}); install triton, or use the torchscript engine"
        ) from None

    def pack(weight: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        return (decode.pack(weight, context),)

    def step(
        x: Tensor,
        packed: tuple[Tensor, ...],
        bias: Tensor,
        h: Tensor,
        c: Tensor,
        out: tuple[Tensor, Tensor],
        ids: Tensor | None = None,
    ) -> None:
        (matrix,) = packed
        decode.step(x, matrix, bias, h, c, out, ids)

    # Where the persistent kernel does not run, the operator takes `sequence`'s.
    return Forms(pack, step, persistent.grouped_sequence, head.log_probabilities, head.score, head.top_k)


def forms_for(device: torch.device) -> Forms:
    """The kernels on a GPU, the references elsewhere."""
    return fused() if device.type == "cuda" else plain()
