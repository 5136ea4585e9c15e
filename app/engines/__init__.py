"""Engines run a model: ids and arrays in, hidden vectors and probabilities out."""

from __future__ import annotations

from app.engines.base import Engine
from app.engines.onnx import NAME, OnnxEngine
from model.bundle import Bundle
from model.errors import EngineError

__all__ = ["Engine", "load_engine"]


def load_engine(bundle: Bundle, precision: str | None = None, threads: int = 1) -> Engine:
    """The bundle's engine in `precision`; None or "auto" is int8 where the bundle has it.

    Raises `EngineError` that lists what the bundle holds.
    """
    held = bundle.manifest.engines.get(NAME, {})
    if precision in (None, "auto"):
        precision = "int8" if "int8" in held else next(iter(held), None)
    if precision is None or precision not in held:
        listed = ", ".join(sorted(held)) or "none"
        wanted = f"in {precision}" if precision else "of any precision"
        raise EngineError(
            f"{bundle.folder} holds no ONNX graphs {wanted} (it holds {listed}); export them or choose another"
        )
    return OnnxEngine(bundle, precision, threads)
