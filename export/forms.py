"""The forms in which a bundle holds a model, one for each engine and precision: how it is written, loaded and judged.

Boundary: a model in, files out; files in, a loaded model out. What the values of a loaded model must be is checked by
`export.validate`, which knows a form by its limits.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch

from export.graphs import write_graphs
from export.quantize import Precision, arithmetic_of
from export.torchscript import write_torchscript
from export.validate import Exported, Limits, check_signatures
from export.weights import FoldedModel, fold_model
from model.checkpoint import load_weights
from model.config import ModelConfig
from model.errors import ExportError
from model.kernels.fused import FusedModel
from model.kernels.weights import DTYPES, pack, save_weights
from model.kernels.weights import load_weights as load_packed
from model.language_model import LanguageModel
from model.onnx_model import RUNTIME_VERSION, OnnxModel
from model.torch_model import TorchModel
from model.torchscript_model import TorchScriptModel

FLOAT32_LIMIT = 1e-4
"""Largest relative difference of values, and largest relative change of perplexity, of products in float32."""


@dataclass(frozen=True)
class Source:
    """What a form is written from: the model of a checkpoint, and its folder."""

    checkpoint: Path
    model: LanguageModel

    @cached_property
    def folded(self) -> FoldedModel:
        """Its weights as matrices to multiply by."""
        return fold_model(self.model.config, load_weights(self.checkpoint))


class Form(ABC):
    """An engine's artefact in one precision."""

    engine: str
    precision: str
    devices: Sequence[str] = ("cpu",)
    """Where it can be validated: "cpu", "cuda"."""
    limits: Limits

    @property
    def name(self) -> str:
        """As messages and tables call it, such as "onnx int8"."""
        return f"{self.engine} {self.precision}"

    @property
    def folder(self) -> str:
        """Where a bundle holds it."""
        return f"{self.engine}/{self.precision}"

    @abstractmethod
    def write(self, source: Source, folder: Path) -> list[Path]:
        """Write it into a new `folder`; the files written."""

    @abstractmethod
    def load(self, files: Sequence[Path], config: ModelConfig, device: str, threads: int) -> list[Exported]:
        """Load what serves, and after it whatever else its files hold that could serve in its place.

        Raises `EngineError` or `ExportError` where the files are not what they should be.
        """

    def versions(self, device: str) -> dict[str, str]:
        """Of everything that its values may depend on."""
        found = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
        return found | {"cuda": str(torch.version.cuda)} if device == "cuda" else found


class OnnxForm(Form):
    """Graphs for ONNX Runtime."""

    engine = "onnx"

    def __init__(self, precision: Precision) -> None:
        self.precision, self._precision = precision.value, precision
        # For int8 the limit of values finds a wrong graph; its quality, the perplexity says. A model trained on
        # WikiText-2 was found at 3.4%, one with random weights at 6.7%, and a graph with one weight out of place at 10%
        # and more.
        self.limits = {
            Precision.FLOAT32: Limits(values=FLOAT32_LIMIT, cost=FLOAT32_LIMIT),
            Precision.INT8: Limits(values=0.08, exact=True),
        }[precision]

    def write(self, source: Source, folder: Path) -> list[Path]:
        return write_graphs(source.folded, arithmetic_of(self._precision, source.folded.table), folder)

    def load(self, files: Sequence[Path], config: ModelConfig, device: str, threads: int) -> list[Exported]:
        model = OnnxModel(files, threads)
        check_signatures(model, config)
        return [model]

    def versions(self, device: str) -> dict[str, str]:
        return {**super().versions(device), "onnx": onnx.__version__, "onnxruntime": RUNTIME_VERSION}


class TorchScriptForm(Form):
    """Programs for torch; on a CPU they use as many threads as torch was told to."""

    engine = "torchscript"
    precision = "float32"
    devices = ("cpu", "cuda")
    limits = Limits(values=FLOAT32_LIMIT, cost=FLOAT32_LIMIT)

    def write(self, source: Source, folder: Path) -> list[Path]:
        return write_torchscript(source.model, folder)

    def load(self, files: Sequence[Path], config: ModelConfig, device: str, threads: int) -> list[Exported]:
        return [TorchScriptModel(files, device, exported=exported) for exported in (False, True)]


class FusedForm(Form):
    """Packed weights for the fused kernels. On a CPU the kernels' plain references compute them."""

    engine = "cuda"
    devices = ("cpu", "cuda")

    def __init__(self, precision: str, values: float) -> None:
        self.precision = precision
        self.limits = Limits(values=values)

    def write(self, source: Source, folder: Path) -> list[Path]:
        weights = pack(source.model, DTYPES[self.precision])
        folder.mkdir(parents=True)
        return [save_weights(weights, folder)]

    def load(self, files: Sequence[Path], config: ModelConfig, device: str, threads: int) -> list[Exported]:
        [path] = files
        model = FusedModel(load_packed(path), torch.device(device))
        return [TorchModel(model, model.device)]


FORMS: tuple[Form, ...] = (
    OnnxForm(Precision.FLOAT32),
    OnnxForm(Precision.INT8),
    TorchScriptForm(),
    FusedForm("bfloat16", values=0.015),
    FusedForm("float16", values=0.002),
)
"""Every form, in the order in which an export writes them."""
ENGINES = tuple(dict.fromkeys(form.engine for form in FORMS))
PRECISIONS = tuple(dict.fromkeys(form.precision for form in FORMS))


def chosen_forms(engines: Sequence[str], precisions: Sequence[str]) -> list[Form]:
    """The forms of some engines, in some precisions or, without any, in all; `ExportError` lists what exists."""
    if unknown := [name for name in engines if name not in ENGINES]:
        raise ExportError(f"there is no engine {unknown[0]!r} to export for; choose from {', '.join(ENGINES)}")
    forms = [form for form in FORMS if form.engine in engines and (not precisions or form.precision in precisions)]
    held = {name: [form.precision for form in FORMS if form.engine == name] for name in dict.fromkeys(engines)}
    listed = "; ".join(f"{name} has {' and '.join(having)}" for name, having in held.items())
    if unknown := [name for name in precisions if not any(name in having for having in held.values())]:
        raise ExportError(f"none of the engines has precision {unknown[0]!r}: {listed}")
    if lacking := [name for name in held if not any(form.engine == name for form in forms)]:
        raise ExportError(f"{lacking[0]} has none of the precisions given: {listed}")
    return forms
