"""A checkpoint's weights as the kernels multiply by them, and the file they travel in.

    weights.safetensors     table [V, E], decoder_bias [V] and, for each layer, layers.<i>.weight [N, 4, M],
                            layers.<i>.bias [4, M] and layers.<i>.context [g, m, 4, m]; matrices in half precision,
                            biases float32; metadata: format_version, dtype

Boundary: tensors on the CPU. Where a model lies on a device, and how it is padded there, is `model.kernels.fused`'s.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.config import ModelConfig, Transform
from model.errors import ConfigurationError, EngineError, ExportError
from model.files import write_atomically
from model.language_model import LanguageModel
from model.pru import PRULayer

FORMAT_VERSION = "1"
FILE = "weights.safetensors"
_OF_LAYER = re.compile(r"layers\.([0-9]{1,3})\.")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""Types of the matrices by the name they are stored under."""


class LayerWeights(NamedTuple):
    """One layer, in the layouts of `model.kernels.reference`; `bias` is the sum of both transforms'."""

    weight: Tensor
    bias: Tensor
    context: Tensor


@dataclass(frozen=True)
class FusedWeights:
    """A language model with one softmax; `table` is both the embedding and the decoder."""

    table: Tensor
    decoder_bias: Tensor
    layers: tuple[LayerWeights, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the matrices."""
        return self.table.dtype

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under the name it is stored by."""
        yield "table", self.table
        yield "decoder_bias", self.decoder_bias
        for index, layer in enumerate(self.layers):
            for name, tensor in zip(LayerWeights._fields, layer, strict=True):
                yield f"layers.{index}.{name}", tensor


def check_supported(config: ModelConfig) -> None:
    """Raise `ConfigurationError` that says what of a model the kernels do not have, and what to use for it."""
    lacking = [
        (config.mogrifier_rounds > 0, f"mogrifier gating ({config.mogrifier_rounds} rounds)"),
        (config.softmaxes > 1, f"a mixture of {config.softmaxes} softmaxes"),
        (config.context_transform is Transform.PYRAMIDAL, "a pyramidal context transform"),
        (not config.input_is_linear, f"{config.subsampling} sub-sampling, which is not linear"),
    ]
    if found := [what for wrong, what in lacking if wrong]:
        raise ConfigurationError(f"the fused kernels do not have {', '.join(found)}; use the torchscript engine")


def pack(model: LanguageModel, dtype: torch.dtype) -> FusedWeights:
    """Fold a model, in float64, and round its matrices to `dtype`.

    Raises `ConfigurationError` for what the kernels lack, `ExportError` where a value is not finite in `dtype`.
    """
    check_supported(model.config)
    layers = [layer for layer in model.layers if isinstance(layer, PRULayer)]
    weights = FusedWeights(
        model.embedding.weight.detach().cpu().to(dtype),
        model.decoder.bias.detach().cpu().float(),
        tuple(_fold(layer, size.inputs, dtype) for layer, size in zip(layers, model.config.layer_sizes, strict=True)),
    )
    for name, tensor in weights.named():
        if not tensor.isfinite().all():
            raise ExportError(f"{name} holds values that are not finite in {name_of(dtype)}; use another precision")
    return weights


@torch.no_grad()
def _fold(layer: PRULayer, inputs: int, dtype: torch.dtype) -> LayerWeights:
    """What a layer's input does to the unit vectors is its matrix, sub-sampling and residual folded in."""
    exact = copy.deepcopy(layer).cpu().double()
    images = exact.from_input(torch.cat([torch.eye(inputs), torch.zeros(1, inputs)]).double())
    context: Tensor = exact.context.get_parameter("weight")
    if context.dim() == 3:
        context = context.unsqueeze(1)
    return LayerWeights(
        weight=(images[:-1] - images[-1]).to(dtype),
        bias=(images[-1] + exact.context.get_parameter("bias")).float(),
        context=context.permute(1, 3, 0, 2).contiguous().to(dtype),
    )


def save_weights(weights: FusedWeights, folder: Path) -> Path:
    """Write `weights.safetensors` into a folder that exists, whole or not at all; returns its path."""
    path = folder / FILE
    metadata = {"format_version": FORMAT_VERSION, "dtype": name_of(weights.dtype)}
    write_atomically(path, save({name: tensor.contiguous() for name, tensor in weights.named()}, metadata))
    return path


def load_weights(path: Path) -> FusedWeights:
    """Read `weights.safetensors`; `EngineError` where it is damaged, of another version, or holds what is no weight."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{path} cannot be read ({error}); restore it or export the bundle again") from None
    if metadata.get("format_version") != FORMAT_VERSION or metadata.get("dtype") not in DTYPES:
        raise EngineError(
            f"{path} has format version {metadata.get('format_version')} and type {metadata.get('dtype')}, "
            f"this program reads version {FORMAT_VERSION} and {', '.join(DTYPES)}; export the bundle again"
        )
    return _checked(tensors, DTYPES[metadata["dtype"]], path)


def _checked(tensors: dict[str, Tensor], dtype: torch.dtype, path: Path) -> FusedWeights:
    """The weights of a file, after a look at names, shapes, types and values; `EngineError` names the first wrong."""
    count = 1 + max((int(match[1]) for name in tensors if (match := _OF_LAYER.match(name))), default=-1)
    layers = [[f"layers.{index}.{name}" for name in LayerWeights._fields] for index in range(count)]
    names = {"table", "decoder_bias"}.union(*layers)
    if wrong := sorted(names ^ tensors.keys()):
        raise EngineError(f"{path}: {wrong[0]} is missing or does not belong there; export the bundle again")
    weights = FusedWeights(
        tensors["table"],
        tensors["decoder_bias"],
        tuple(LayerWeights(*(tensors[name] for name in layer)) for layer in layers),
    )
    expected = _shapes(weights)
    for name, tensor in weights.named():
        wanted = torch.float32 if name.endswith("bias") else dtype
        if tuple(tensor.shape) != expected[name] or tensor.dtype != wanted:
            raise EngineError(
                f"{path}: {name} is {list(tensor.shape)} of {name_of(tensor.dtype)}, not {list(expected[name])} of "
                f"{name_of(wanted)}; export the bundle again"
            )
        if not tensor.isfinite().all():
            raise EngineError(f"{path}: {name} holds values that are not finite; export the bundle again")
    return weights


def _shapes(weights: FusedWeights) -> dict[str, tuple[int, ...]]:
    """The shapes that follow from the table's and from what each context says of its groups."""
    words, inputs = weights.table.shape if weights.table.dim() == 2 else (0, 0)
    embedding = inputs
    shapes: dict[str, tuple[int, ...]] = {"table": (words, inputs), "decoder_bias": (words,)}
    for index, layer in enumerate(weights.layers):
        groups, m = layer.context.shape[:2] if layer.context.dim() == 4 else (0, 0)
        last = index == len(weights.layers) - 1
        outputs = embedding if last else groups * m
        shapes[f"layers.{index}.weight"] = (inputs, 4, outputs)
        shapes[f"layers.{index}.bias"] = (4, outputs)
        shapes[f"layers.{index}.context"] = (groups, outputs // groups if groups else 0, 4, m)
        inputs = outputs
    return shapes


def name_of(dtype: torch.dtype) -> str:
    """A type's name as people write it: "bfloat16"."""
    return str(dtype).removeprefix("torch.")
