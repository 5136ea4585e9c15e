"""The checkpoint contract between training and export: a folder with configuration, weights, vocabulary and record.

    config.json         {"format_version": 1, "model": {...}}
    model.safetensors   weights by name, float32 or float16
    tokenizer.json      the vocabulary
    training.json       data, recipe, curve, seed, versions

Boundary: the files only. Resume state is kept apart (`training.resume`). Imports no torch until a model is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from model.config import ModelConfig
from model.errors import CheckpointError, ConfigurationError, TextError
from model.files import read_json, write_atomically, write_json
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from model.language_model import LanguageModel

FORMAT_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, RECORD = "config.json", "model.safetensors", "tokenizer.json", "training.json"

Weights = dict[str, npt.NDArray[np.float32]]


def save_checkpoint(
    folder: Path, model: LanguageModel, vocabulary: Vocabulary, record: dict[str, Any], *, half: bool = False
) -> None:
    """Write a checkpoint, each file whole or not at all; `half` stores the weights as float16.

    The weights come before the record, so a process killed in between leaves the newer of two usable models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.float16 if half else np.float32
    weights = {name: tensor.detach().cpu().numpy().astype(dtype) for name, tensor in model.state_dict().items()}
    write_json(folder / CONFIG, {"format_version": FORMAT_VERSION, "model": model.config.model_dump(mode="json")})
    vocabulary.save(folder / TOKENIZER)
    write_atomically(folder / WEIGHTS, save(weights))
    write_json(folder / RECORD, record)


def read_config(folder: Path) -> ModelConfig:
    """The architecture a checkpoint holds; `CheckpointError` where it cannot be read."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder that `python -m training train` wrote")
    data = read_json(folder / CONFIG, CheckpointError)
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / CONFIG} has format version {version}, this program reads {FORMAT_VERSION}; "
            "train again or use the program version that wrote it"
        )
    try:
        return ModelConfig.from_dict(data.get("model"))
    except ConfigurationError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None


def load_weights(folder: Path) -> Weights:
    """Weights by name, widened to float32; `CheckpointError` where they are missing, damaged or not finite."""
    path = folder / WEIGHTS
    try:
        weights = {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; restore it or train again") from None
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); restore it or train again") from None
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; go back to an earlier checkpoint")
    return weights


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the training run (`training.json`)."""
    record = read_json(folder / RECORD, CheckpointError)
    if not isinstance(record, dict):
        raise CheckpointError(f"{folder / RECORD} does not hold an object; restore it or train again")
    return record


def load_checkpoint(folder: Path) -> tuple[LanguageModel, Vocabulary, dict[str, Any]]:
    """The model (float32, evaluating), its vocabulary and its record; needs torch.

    Raises `CheckpointError` for a missing or damaged file, and where weights and configuration do not belong together.
    """
    import torch  # noqa: PLC0415 - the rest of this file serves programs without torch

    from model.language_model import outline  # noqa: PLC0415

    config = read_config(folder)
    try:
        vocabulary = Vocabulary.load(folder / TOKENIZER)
    except TextError as error:
        raise CheckpointError(
            f"{error}; restore the file, train again or use the program version that wrote it"
        ) from None
    if len(vocabulary) != config.vocabulary_size:
        raise CheckpointError(
            f"{folder / TOKENIZER} holds {len(vocabulary)} words, the model {config.vocabulary_size}; "
            "restore the file that belongs to this checkpoint"
        )
    model = outline(config)  # Nothing is allocated on the word of the configuration alone.
    weights = load_weights(folder)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: array.shape for name, array in weights.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise CheckpointError(
            f"{folder / WEIGHTS}: {wrong[0]} has shape {found.get(wrong[0])}, {CONFIG} asks for "
            f"{expected.get(wrong[0])}; restore the files of one checkpoint"
        )
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)
    return model.eval(), vocabulary, read_record(folder)
