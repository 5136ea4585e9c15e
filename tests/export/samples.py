"""Small random models: weights by the checkpoint's names and shapes, checkpoint folders, and graphs made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from export.builder import WeightStore
from export.graph import build_head, build_steps
from export.quantize import Precision, arithmetic_of
from export.weights import fold_model
from model.config import ModelConfig, level_inputs, level_outputs
from model.conventions import Convention
from model.files import write_json
from model.onnx_model import HEAD, OnnxModel, steps_name
from model.vocabulary import Vocabulary

Weights = dict[str, npt.NDArray[np.float32]]

TEXT = "the old men sang\nthe red boat ran down the river to the sea and home at night\n\nit was blue\n" * 12


def config_of(**fields: Any) -> ModelConfig:
    """A small configuration, changed where told."""
    return ModelConfig(**({"vocabulary_size": 50, "embedding_size": 12, "hidden_size": 16, "layers": 2} | fields))


def random_weights(config: ModelConfig, seed: int = 0) -> Weights:
    """Weights large enough that gates leave their linear range."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float) -> npt.NDArray[np.float32]:
        return rng.uniform(-scale, scale, shape).astype(np.float32)

    weights = {
        "embedding.weight": draw(config.vocabulary_size, config.embedding_size, scale=1.0),
        "decoder.bias": draw(config.vocabulary_size, scale=1.0),
    }
    for layer, (inputs, outputs) in enumerate(config.layer_sizes):
        for role, kind, n in (
            ("input", config.input_transform, inputs),
            ("context", config.context_transform, outputs),
        ):
            prefix, scale = f"layers.{layer}.{role}", 2 / np.sqrt(n)
            weights[f"{prefix}.bias"] = draw(4, outputs, scale=0.5)
            if kind == "linear":
                weights[f"{prefix}.weight"] = draw(4, outputs, n, scale=scale)
            elif kind == "grouped":
                g = config.groups
                weights[f"{prefix}.weight"] = draw(4, g, outputs // g, n // g, scale=scale)
            else:
                sizes = zip(
                    level_outputs(outputs, config.levels, config.split), level_inputs(n, config.levels), strict=True
                )
                for k, (o_k, n_k) in enumerate(sizes):
                    weights[f"{prefix}.levels.{k}.weight"] = draw(4, o_k, n_k, scale=scale)
                if config.subsampling == "convolution":
                    weights[f"{prefix}.kernels"] = draw(config.levels - 1, 3, scale=1.0)
        for i in range(config.mogrifier_rounds):
            prefix, (n, m) = f"layers.{layer}.mogrifier.rounds.{i}", (inputs, outputs) if i % 2 else (outputs, inputs)
            rank = config.mogrifier_rank
            if rank is None:
                weights[f"{prefix}.weight"] = draw(m, n, scale=2 / np.sqrt(n))
            else:
                weights[f"{prefix}.left"] = draw(m, rank, scale=2 / np.sqrt(rank))
                weights[f"{prefix}.right"] = draw(rank, n, scale=2 / np.sqrt(n))
    if config.softmaxes > 1:
        size = config.embedding_size
        weights["decoder.prior.weight"] = draw(config.softmaxes, size, scale=2 / np.sqrt(size))
        weights["decoder.latent.weight"] = draw(config.softmaxes * size, size, scale=2 / np.sqrt(size))
        weights["decoder.latent.bias"] = draw(config.softmaxes * size, scale=0.5)
    return weights


def random_ids(config: ModelConfig, *shape: int, seed: int = 1) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, config.vocabulary_size, shape).astype(np.int32)


def random_states(config: ModelConfig, rows: int, seed: int = 2) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.95, 0.95, (rows, config.state_size)).astype(np.float32)


def build(
    config: ModelConfig,
    weights: Weights,
    precision: Precision,
    folder: Path,
    *,
    lengths: Sequence[int] = (1, 4),
    threads: int = 1,
) -> OnnxModel:
    """Graphs of random weights in `folder`, loaded."""
    model = fold_model(config, weights)
    arithmetic = arithmetic_of(precision, model.table)
    store = WeightStore("weights.bin")
    graphs = {steps_name(length): build_steps(model, length, arithmetic, store) for length in lengths}
    graphs[HEAD] = build_head(model, arithmetic, store)
    folder.mkdir(parents=True, exist_ok=True)
    store.write(folder)
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph.SerializeToString())
    return OnnxModel([folder / name for name in graphs], threads)


def vocabulary_of(config: ModelConfig) -> Vocabulary:
    words = ["<eos>", "<unk>", *sorted(set(TEXT.split()))]
    fillers = [f"word{i}" for i in range(config.vocabulary_size - len(words))]
    return Vocabulary([*words, *fillers], Convention.WIKITEXT)


def write_checkpoint(folder: Path, config: ModelConfig, weights: Weights) -> Path:
    """A checkpoint folder as training writes it."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"format_version": 1, "model": config.model_dump(mode="json")})
    save_file(weights, folder / "model.safetensors")
    vocabulary_of(config).save(folder / "tokenizer.json")
    write_json(folder / "training.json", {"preset": "none", "model": {}, "seed": 0})
    return folder
