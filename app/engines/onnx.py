"""The ONNX Runtime engines: a bundle's graphs behind the `Engine` protocol, on the CPU and on CUDA.

Boundary: names and precisions. How graphs are run is `model.onnx_model` and `model.onnx_cuda_model`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model.onnx_cuda_model import Device, OnnxCudaModel
from model.onnx_model import OnnxModel


class OnnxEngine(OnnxModel):
    """A bundle's ONNX graphs of one precision, on `threads` threads of the CPU."""

    name = "onnx"

    def __init__(self, files: Iterable[Path], precision: str, threads: int) -> None:
        super().__init__(files, threads)
        self.precision = precision


class OnnxCudaEngine(OnnxCudaModel):
    """A bundle's float32 graphs on a GPU; on the CPU for tests."""

    name = "onnx-cuda"
    precision = "float32"

    def __init__(self, files: Iterable[Path], threads: int, device: Device = "cuda") -> None:
        super().__init__(files, threads, device)
