"""The TorchScript engine: a bundle's programs behind the `Engine` protocol, on the CPU or on CUDA.

Boundary: names, precisions and threads. How the programs are run is `model.torchscript_model`. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from model.torchscript_model import TorchScriptModel


class TorchScriptEngine(TorchScriptModel):
    """A bundle's programs, on `threads` threads of this process where they run on the CPU."""

    name = "torchscript"
    precision = "float32"

    def __init__(self, files: Iterable[Path], device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        super().__init__(files, device)
