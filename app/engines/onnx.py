"""The ONNX Runtime engine: a bundle's graphs behind the `Engine` protocol.

Boundary: which files of a bundle to load. How they are run is `model.onnx_model`, which export validates with.
"""

from __future__ import annotations

from model.bundle import Bundle
from model.errors import EngineError
from model.onnx_model import OnnxModel

NAME = "onnx"


class OnnxEngine(OnnxModel):
    """A bundle's ONNX graphs of one precision, on `threads` threads."""

    name = NAME

    def __init__(self, bundle: Bundle, precision: str, threads: int) -> None:
        super().__init__(bundle.paths(bundle.manifest.engines[NAME][precision]), threads)
        self.precision = precision
        model = bundle.manifest.model
        if (self.vocabulary_size, self.state_size) != (model.vocabulary_size, model.state_size):
            raise EngineError(f"{bundle.folder}: the {precision} graphs are of another model; export the bundle again")
