"""Folded matrices against the unfolded transforms, and the averages against torch's pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.weights import fold_transform, halving_matrix
from model.config import Subsampling, Transform
from tests.export.reference import transform
from tests.export.samples import config_of, random_weights


@pytest.mark.parametrize("inputs", [1, 2, 7, 16, 37])
@pytest.mark.parametrize("width", [3, 5, 7])
def test_the_average_as_a_matrix_is_torchs_pooling(inputs: int, width: int) -> None:
    x = np.random.default_rng(0).normal(size=inputs)
    pooled = F.avg_pool1d(torch.from_numpy(x)[None], width, stride=2, padding=width // 2)[0].numpy()
    np.testing.assert_allclose(halving_matrix(inputs, np.full(width, 1 / width)) @ x, pooled, atol=1e-15)


@pytest.mark.parametrize("inputs", [1, 2, 7, 16])
def test_skipping_as_a_matrix_takes_every_other_element(inputs: int) -> None:
    x = np.arange(inputs, dtype=np.float64)
    np.testing.assert_array_equal(halving_matrix(inputs, np.ones(1)) @ x, x[::2])


@pytest.mark.parametrize("subsampling", [Subsampling.AVERAGE, Subsampling.SKIP])
@pytest.mark.parametrize("kernels", ["released", "paper"])
@pytest.mark.parametrize(("hidden", "levels"), [(16, 1), (16, 2), (21, 4), (37, 3)])
def test_a_linear_pyramid_is_one_matrix(subsampling: Subsampling, kernels: str, hidden: int, levels: int) -> None:
    config = config_of(
        embedding_size=hidden, hidden_size=hidden, levels=levels, subsampling=subsampling, average_kernels=kernels,
        context_transform="linear",
    )  # fmt: skip
    weights = random_weights(config)
    folded = fold_transform(config, Transform.PYRAMIDAL, "layers.0.input", weights)
    assert [level.shape for level in folded.levels] == [(1, hidden, 4, hidden)]
    x = np.random.default_rng(3).normal(size=hidden)
    expected = transform(
        x, config, "pyramidal", {k: v.astype(np.float64) for k, v in weights.items()}, "layers.0.input"
    )
    found = np.einsum("n,nvm->vm", x, folded.levels[0][0]) + weights["layers.0.input.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("subsampling", [Subsampling.MAX, Subsampling.CONVOLUTION])
def test_other_pyramids_keep_their_levels(subsampling: Subsampling) -> None:
    config = config_of(levels=3, subsampling=subsampling)
    weights = random_weights(config)
    folded = fold_transform(config, Transform.PYRAMIDAL, "layers.0.input", weights)
    assert [level.shape for level in folded.levels] == [(1, 12, 4, 10), (1, 6, 4, 4), (1, 3, 4, 2)]
    np.testing.assert_array_equal(folded.levels[1][0], weights["layers.0.input.levels.1.weight"].transpose(2, 0, 1))
    assert (folded.kernels is None) == (subsampling is Subsampling.MAX)
