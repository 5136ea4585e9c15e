"""Architecture of a PRU language model as plain, validated data.

Boundary: sizes and names only. Imports no torch, so that serving and export can read a configuration without it.
Training settings (dropout, optimiser, schedule) are not part of the architecture and live in `training`.
"""

from __future__ import annotations

import itertools
import math
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import ConfigurationError

GATES = ("input", "forget", "cell", "output")
"""Order of the four gates in every weight and bias, the same as in `torch.nn.LSTM` (i, f, g, o)."""


LARGEST_SIZE = 2**24
"""Most numbers in a vector. The weights between two such vectors are as many as torch can still count."""
MOST_LEVELS = 24
"""Most levels: as often as the largest vector can be halved."""
MOST_ROUNDS = 16
"""Most rounds of gating; the published models have 4 to 6."""
MOST_SOFTMAXES = 64
"""Most softmaxes in a mixture; the published models have 10 to 15."""


class Transform(StrEnum):
    """Kind of map from an input or a context vector to the gates (the paper's Table 3)."""

    LINEAR = "linear"
    GROUPED = "grouped"
    PYRAMIDAL = "pyramidal"


class Split(StrEnum):
    """How a pyramidal transform divides its M outputs over K levels."""

    GEOMETRIC = "geometric"
    """o_k = ceil(M / 2^k) and o_1 also takes the remainder: what the published numbers used."""
    EQUAL = "equal"
    """o_k = M / K: what Eq. 2 of the paper writes."""


class Subsampling(StrEnum):
    """How level k is made from level k-1, always with stride 2 (Eq. 3 and Table 4)."""

    AVERAGE = "average"
    SKIP = "skip"
    MAX = "max"
    CONVOLUTION = "convolution"


class AverageKernels(StrEnum):
    """Kernel widths of average sub-sampling."""

    RELEASED = "released"
    """The released code: 3 at the last level and 2 more for each level before it (7, 5, 3 at K=4)."""
    PAPER = "paper"
    """3 at every level."""


class LayerSize(NamedTuple):
    """Input length N and output length M of one recurrent layer."""

    inputs: int
    outputs: int


class ModelConfig(BaseModel):
    """A PRU language model: embedding, a stack of PRU layers, and a decoder tied to the embedding.

    Layer sizes are E-M, M-M, ..., M-E, so that the last layer's output meets the tied embedding.
    An LSTM is the special case `groups=1, levels=1, residual=False`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary_size: int = Field(ge=2, le=LARGEST_SIZE)
    embedding_size: int = Field(ge=1, le=LARGEST_SIZE)
    hidden_size: int = Field(ge=1, le=LARGEST_SIZE)
    layers: int = Field(ge=1, le=16)
    groups: int = Field(default=4, ge=1)
    levels: int = Field(default=2, ge=1, le=MOST_LEVELS)
    input_transform: Transform = Transform.PYRAMIDAL
    context_transform: Transform = Transform.GROUPED
    split: Split = Split.GEOMETRIC
    subsampling: Subsampling = Subsampling.AVERAGE
    average_kernels: AverageKernels = AverageKernels.RELEASED
    residual: bool = True
    mogrifier_rounds: int = Field(default=0, ge=0, le=MOST_ROUNDS)
    """How often input and context gate each other before a step (Melis et al. 2020); 0 leaves them as they are."""
    mogrifier_rank: int | None = Field(default=None, ge=1, le=LARGEST_SIZE)
    """Rank of the matrices that make these gates; none means full matrices."""
    softmaxes: int = Field(default=1, ge=1, le=MOST_SOFTMAXES)
    """Softmaxes that are mixed into the prediction (Yang et al. 2018)."""

    @classmethod
    def from_dict(cls, data: Any) -> ModelConfig:
        """Read a configuration; raise `ConfigurationError` that names the first wrong field."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "configuration"
            raise ConfigurationError(f"model configuration: {where}: {first['msg']}") from None

    @model_validator(mode="after")
    def _layers_can_be_built(self) -> ModelConfig:
        if self.layers == 1 and self.hidden_size != self.embedding_size:
            raise ValueError(
                f"one layer needs hidden_size ({self.hidden_size}) equal to embedding_size ({self.embedding_size}); "
                "make them equal or use more layers"
            )
        if self.mogrifier_rank is not None and not self.mogrifier_rounds:
            raise ValueError("mogrifier_rank is of the gates that mogrifier_rounds counts; give rounds or leave it out")
        for size in self.layer_sizes:
            self._check_transform(self.input_transform, "input", size.inputs, size.outputs)
            self._check_transform(self.context_transform, "context", size.outputs, size.outputs)
        return self

    def _check_transform(self, kind: Transform, role: str, inputs: int, outputs: int) -> None:
        if kind is Transform.GROUPED and (inputs % self.groups or outputs % self.groups):
            raise ValueError(
                f"groups={self.groups} does not divide the {role} transform's {inputs} inputs and {outputs} outputs; "
                "choose sizes that are multiples of groups"
            )
        if kind is Transform.PYRAMIDAL:
            level_outputs(outputs, self.levels, self.split)
            if level_inputs(inputs, self.levels)[-1] < 2 and self.levels > 1:
                raise ValueError(f"levels={self.levels} sub-samples {inputs} inputs to less than 2; use fewer levels")

    @property
    def input_is_linear(self) -> bool:
        """Whether the input's part of Eq. 5 is a linear map, so that a pyramid is one dense matrix."""
        pyramid = self.input_transform is Transform.PYRAMIDAL and self.levels > 1
        return not pyramid or self.subsampling in (Subsampling.AVERAGE, Subsampling.SKIP)

    @property
    def layer_sizes(self) -> tuple[LayerSize, ...]:
        """Input and output length of every layer, first to last."""
        edges = [self.embedding_size, *[self.hidden_size] * (self.layers - 1), self.embedding_size]
        return tuple(LayerSize(n, m) for n, m in itertools.pairwise(edges))

    @property
    def state_size(self) -> int:
        """Floats in one packed state row `[h1, c1, h2, c2, ...]`."""
        return sum(2 * size.outputs for size in self.layer_sizes)


def level_outputs(outputs: int, levels: int, split: Split) -> tuple[int, ...]:
    """Outputs o_1..o_K of each pyramid level, summing to `outputs`; `ValueError` where the split is impossible."""
    if split is Split.EQUAL:
        if outputs % levels:
            raise ValueError(f"split=equal needs levels={levels} to divide {outputs} outputs; use split=geometric")
        return (outputs // levels,) * levels
    sizes = [math.ceil(outputs / 2**k) for k in range(1, levels + 1)]
    sizes[0] += outputs - sum(sizes)
    if sizes[0] < 1:
        raise ValueError(f"levels={levels} leaves level 1 of {outputs} outputs without any; use fewer levels")
    return tuple(sizes)


def level_inputs(inputs: int, levels: int) -> tuple[int, ...]:
    """Length ceil(N / 2^(k-1)) of what each pyramid level sees."""
    return tuple(math.ceil(inputs / 2**k) for k in range(levels))
