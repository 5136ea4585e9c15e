"""The checkpoint contract between training and export: a folder with configuration, weights, vocabulary and record.

    config.json         {"format_version": 1, "model": {...}}
    model.safetensors   weights by name, float32 or float16; or pieces of it (`model.shards`)
    tokenizer.json      the vocabulary
    training.json       data, recipe, curve, seed, versions

Boundary: the files only. Resume state is kept apart (`training.resume`). Imports no torch until a model is asked for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from model.config import ModelConfig
from model.errors import CheckpointError, ConfigurationError, TextError
from model.files import read_json, sha256_of, write_atomically, write_json
from model.shards import Weights, joined, pieces, shard_paths
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from model.language_model import LanguageModel

FORMAT_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, RECORD = "config.json", "model.safetensors", "tokenizer.json", "training.json"


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
    paths = _weights_paths(folder)
    parts: Weights = {}
    for path in paths:
        try:
            parts |= {name: array.astype(np.float32) for name, array in load_file(path).items()}
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; restore it or train again") from None
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); restore it or train again") from None
    weights = joined(parts) if len(paths) > 1 else parts
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"{folder}: {name} holds values that are not finite; go back to an earlier checkpoint"
            )
    return weights


def weights_sha256(folder: Path) -> str:
    """Hexadecimal SHA-256 of a checkpoint's weights as they are stored: of the sums of its files."""
    return hashlib.sha256("".join(map(sha256_of, _weights_paths(folder))).encode()).hexdigest()


def pack_checkpoint(folder: Path, out: Path, limit: int) -> int:
    """Copy a checkpoint to the new folder `out`, its weights in float16 and in files of at most `limit` bytes each.

    Returns how many those are. Raises `CheckpointError` where the checkpoint cannot be read, `out` is there already, or
    the limit holds not even a row of a matrix; `OSError` where `out` cannot be written.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists; give another --out folder")
    config = read_json(folder / CONFIG, CheckpointError)
    read_config(folder)
    weights = {name: array.astype(np.float16) for name, array in load_weights(folder).items()}
    parts = pieces(weights, limit)
    out.mkdir(parents=True)
    for path, part in zip(shard_paths(out, len(parts)), parts, strict=True):
        write_atomically(path, save(part))
    for name in (TOKENIZER, RECORD, CONFIG):  # Without a configuration nothing takes it for a whole checkpoint.
        content = config if name == CONFIG else read_json(folder / name, CheckpointError)
        write_json(out / name, content)
    return len(parts)


def _weights_paths(folder: Path) -> list[Path]:
    """The one file of weights, or all of its pieces; `CheckpointError` that names a piece that is missing."""
    found = sorted(folder.glob("model-*-of-*.safetensors"))
    if not found or (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    expected = shard_paths(folder, int(found[0].stem.rpartition("-")[2]))
    if missing := sorted(set(expected) - set(found)):
        raise CheckpointError(f"{missing[0]} is missing; bring all {len(expected)} pieces of the checkpoint")
    return expected


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
