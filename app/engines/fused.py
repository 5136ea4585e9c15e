"""The fused CUDA engine: a bundle's packed weights behind the `Engine` protocol, computed by the project's own kernels.

Boundary: names and precisions. How the model is run is `model.kernels.fused`. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from model.errors import EngineError
from model.kernels.fused import FusedModel
from model.kernels.weights import FILE, load_weights
from model.torch_model import TorchModel


class FusedEngine(TorchModel):
    """A bundle's packed weights of one precision on a GPU; on the CPU, by the kernels' plain references, for tests."""

    name = "cuda"

    def __init__(self, files: Iterable[Path], device: str = "cuda") -> None:
        path = next((path for path in files if path.name == FILE), None)
        if path is None:
            raise EngineError(f"the bundle lists no {FILE}; export it again")
        model = FusedModel(load_weights(path), torch.device(device))
        super().__init__(model, model.device)
        self.precision = model.precision
