"""Every engine that this machine can run, on one small bundle, and how close each comes to the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.engines import Engine
from app.engines.choice import CANDIDATES, Candidate
from app.engines.fused import FusedEngine
from app.engines.onnx import OnnxCudaEngine
from model.bundle import Bundle

TOLERANCE = {"float32": 1e-5, "int8": 0.06, "bfloat16": 0.06, "float16": 0.01}
"""Largest difference of a float of the state, of a hidden vector or of a log-probability from the model in float64."""
EXACT = {"int8"}
"""Precisions whose sums are exact: the same to the bit alone and in a batch, whole and in parts."""

Build = Callable[[Bundle], Engine]


def _loaded(candidate: Candidate) -> Build:
    def build(bundle: Bundle) -> Engine:
        # A GPU's machine may lack one of the libraries; what the CPU's engines or the bundle lack is a failure.
        if candidate.device == "cuda" and (missing := candidate.lacks()):
            pytest.skip(missing)
        files = bundle.paths(bundle.manifest.engines[candidate.artefact][candidate.precision])
        return candidate.load(bundle, files, candidate, 1)

    return build


def _onnx_cuda_on_the_cpu(bundle: Bundle) -> Engine:
    return OnnxCudaEngine(bundle.paths(bundle.manifest.engines["onnx"]["float32"]), 1, "cpu")


def _fused_on_the_cpu(precision: str) -> Build:
    def build(bundle: Bundle) -> Engine:
        return FusedEngine(bundle.paths(bundle.manifest.engines["cuda"][precision]), "cpu")

    return build


EVERY_ENGINE = [
    *(
        pytest.param(
            _loaded(candidate),
            id=f"{candidate.engine}-{candidate.precision}-{candidate.device}",
            marks=[pytest.mark.gpu] if candidate.device == "cuda" else [],
        )
        for candidate in CANDIDATES
    ),
    pytest.param(_onnx_cuda_on_the_cpu, id="onnx-cuda-float32-cpu"),
    *(pytest.param(_fused_on_the_cpu(precision), id=f"cuda-{precision}-cpu") for precision in ("bfloat16", "float16")),
]
