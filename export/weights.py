"""A checkpoint's weights as the matrices that the graphs multiply by.

Boundary: arrays in, arrays out. Linear sub-samplings (average and skip) are folded into the level's matrix, so such a
pyramid is one dense matrix; max and convolution are not linear, so their levels stay apart. Folding is done in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.config import LayerSize, ModelConfig, Subsampling, Transform
from model.transforms import average_kernels

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FoldedTransform:
    """A transform as one matrix a level, `[g, n_k / g, 4, o_k / g]`; with several levels g is 1.

    Each level after the first reads the one before it sub-sampled by `subsampling` (max or convolution; `kernels`
    `[K - 1, 3]` are the convolution's).
    """

    levels: tuple[Floats, ...]
    subsampling: Subsampling | None = None
    kernels: Floats | None = None

    @property
    def groups(self) -> int:
        """How many groups of inputs and outputs are independent."""
        return len(self.levels[0])


@dataclass(frozen=True)
class FoldedLayer:
    """One layer: its input transform (one group), its context transform, and the sum of their biases `[4, M]`.

    `rounds` are the matrices of its mogrifier's gates, each one `[n, m]`, or two of a rank.
    """

    size: LayerSize
    residual: bool
    input: FoldedTransform
    context: FoldedTransform
    bias: Floats
    rounds: tuple[tuple[Floats, ...], ...]


@dataclass(frozen=True)
class FoldedMixture:
    """What K softmaxes are mixed by: `prior [E, K]`, and `latent [E, K * E]` with its bias `[K * E]`."""

    prior: Floats
    latent: Floats
    bias: Floats


@dataclass(frozen=True)
class FoldedModel:
    """A language model; `table [V, E]` is both the embedding and the decoder."""

    config: ModelConfig
    table: Floats
    decoder_bias: Floats
    layers: tuple[FoldedLayer, ...]
    mixture: FoldedMixture | None

    @property
    def groups(self) -> int:
        """Groups of every layer's recurrence."""
        return self.layers[0].context.groups


def fold_model(config: ModelConfig, weights: Mapping[str, Floats]) -> FoldedModel:
    """Fold every layer of a checkpoint's weights (names and shapes as `model.language_model` has them)."""
    layers = []
    for index, size in enumerate(config.layer_sizes):
        prefix = f"layers.{index}"
        grouped_input = fold_transform(config, config.input_transform, f"{prefix}.input", weights)
        layers.append(
            FoldedLayer(
                size=size,
                residual=config.residual and size.inputs == size.outputs,
                input=_ungrouped(grouped_input),
                context=fold_transform(config, config.context_transform, f"{prefix}.context", weights),
                bias=weights[f"{prefix}.input.bias"] + weights[f"{prefix}.context.bias"],
                rounds=_fold_rounds(config, f"{prefix}.mogrifier.rounds", weights),
            )
        )
    mixture = None
    if config.softmaxes > 1:
        names = ("decoder.prior.weight", "decoder.latent.weight", "decoder.latent.bias")
        mixture = FoldedMixture(*(weights[name].T for name in names))
    return FoldedModel(config, weights["embedding.weight"], weights["decoder.bias"], tuple(layers), mixture)


def fold_transform(config: ModelConfig, kind: Transform, prefix: str, weights: Mapping[str, Floats]) -> FoldedTransform:
    """Fold the transform whose weights are called `prefix.*`; its bias is left out."""
    if kind is Transform.LINEAR:
        return FoldedTransform((weights[f"{prefix}.weight"].transpose(2, 0, 1)[None],))
    if kind is Transform.GROUPED:
        return FoldedTransform((weights[f"{prefix}.weight"].transpose(1, 3, 0, 2),))
    levels = [weights[f"{prefix}.levels.{k}.weight"].transpose(2, 0, 1) for k in range(config.levels)]
    if config.levels == 1:
        return FoldedTransform((levels[0][None],))
    if config.subsampling in (Subsampling.AVERAGE, Subsampling.SKIP):
        return FoldedTransform((_fold_pyramid(config, levels)[None],))
    return FoldedTransform(tuple(level[None] for level in levels), config.subsampling, weights.get(f"{prefix}.kernels"))


def _fold_rounds(config: ModelConfig, prefix: str, weights: Mapping[str, Floats]) -> tuple[tuple[Floats, ...], ...]:
    """Every round's matrices, in the order in which a row is multiplied by them."""
    factors = ["weight"] if config.mogrifier_rank is None else ["right", "left"]
    return tuple(
        tuple(weights[f"{prefix}.{i}.{factor}"].T for factor in factors) for i in range(config.mogrifier_rounds)
    )


def _fold_pyramid(config: ModelConfig, levels: list[Floats]) -> Floats:
    """Levels `[n_k, 4, o_k]` behind a linear sub-sampling as one matrix `[N, 4, M]`."""
    if config.subsampling is Subsampling.AVERAGE:
        kernels = [np.full(width, 1 / width) for width in average_kernels(config.levels, config.average_kernels)]
    else:
        kernels = [np.ones(1)] * (config.levels - 1)
    view = np.eye(len(levels[0]))
    dense = [levels[0].astype(np.float64)]
    for level, kernel in zip(levels[1:], kernels, strict=True):
        view = halving_matrix(len(view), kernel) @ view
        dense.append(np.einsum("kn,kvo->nvo", view, level.astype(np.float64), optimize=True))
    return np.concatenate(dense, axis=2).astype(np.float32)


def halving_matrix(inputs: int, kernel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The matrix `[ceil(n / 2), n]` of a filter of odd width moved by 2, zeros beyond both ends."""
    outputs = -(-inputs // 2)
    matrix = np.zeros((outputs, inputs))
    for tap, value in enumerate(kernel):
        column = 2 * np.arange(outputs) + tap - len(kernel) // 2
        inside = (column >= 0) & (column < inputs)
        matrix[np.arange(outputs)[inside], column[inside]] = value
    return matrix


def _ungrouped(transform: FoldedTransform) -> FoldedTransform:
    """A grouped transform as a dense one, with zeros between the groups: its product is outside the recurrence."""
    if transform.groups == 1:
        return transform
    (blocks,) = transform.levels
    groups, inputs, gates, outputs = blocks.shape
    dense = np.zeros((groups, inputs, gates, groups, outputs), np.float32)
    for group, block in enumerate(blocks):
        dense[group, :, :, group] = block
    return FoldedTransform((dense.reshape(1, groups * inputs, gates, groups * outputs),))
