"""The checkpoint contract between training and export: a folder with configuration, weights, vocabulary and record.

    config.json         {"format_version": 1, "model": {...}}
    model.safetensors   weights by name, float32 or float16; or pieces of it (`model.shards`)
    tokenizer.json      the vocabulary
    training.json       data, recipe, curve, seed, versions

Boundary: the files only. Resume state is kept apart (`training.resume`). Imports no torch until a model is asked for.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.config import ModelConfig
from model.errors import CheckpointError, ConfigurationError, TextError
from model.files import read_json, sha256_of, sync_folder, write_atomically, write_json
from model.shards import Weights, find_shards, joined, pieces, shard_paths
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from model.language_model import LanguageModel

FORMAT_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, RECORD = "config.json", "model.safetensors", "tokenizer.json", "training.json"
WHOLE = "whole"
"""In the metadata of a piece: the sum of the weights it is of."""


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
        raise CheckpointError(f"{folder} is not a folder; give the folder that `pru train` wrote")
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
    sums = set()
    for path in paths:
        try:
            with safe_open(path, framework="np") as file:
                parts |= {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
                sums.add((file.metadata() or {}).get(WHOLE))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; restore it or train again") from None
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); restore it or train again") from None
        if len(sums) > 1:
            raise CheckpointError(f"{path} is of another checkpoint than {paths[0].name}; bring all pieces of one")
    weights = joined(parts) if len(paths) > 1 else parts
    _check_finite(weights, folder, "finite; go back to an earlier checkpoint")
    return weights


def _check_finite(weights: Mapping[str, npt.NDArray[Any]], folder: Path, otherwise: str) -> None:
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{folder}: {name} holds values that are not {otherwise}")


def weights_sha256(folder: Path) -> str:
    """Hexadecimal SHA-256 of a checkpoint's weights as they are stored: of the sums of its files."""
    return hashlib.sha256("".join(map(sha256_of, _weights_paths(folder))).encode()).hexdigest()


def pack_checkpoint(folder: Path, out: Path, limit: int) -> int:
    """Copy a checkpoint to the new folder `out`, its weights in float16 and in files of at most `limit` bytes each.

    Returns how many those are. Raises `CheckpointError` where the checkpoint cannot be read, `out` is there already, or
    the limit holds not even a row of a matrix; `OSError` where `out` cannot be written. Whatever stops it, `out` is
    whole or not there.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists; give another --out folder")
    read_config(folder)
    contents = {name: read_json(folder / name, CheckpointError) for name in (TOKENIZER, RECORD, CONFIG)}
    with np.errstate(over="ignore"):
        weights = {name: array.astype(np.float16) for name, array in load_weights(folder).items()}
    _check_finite(weights, folder, "finite in half precision, which ends at 65504; copy the folder as it is")
    parts, whole = pieces(weights, limit), {WHOLE: weights_sha256(folder)}
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        beside.mkdir()
        for path, part in zip(shard_paths(beside, len(parts)), parts, strict=True):
            write_atomically(path, save(part, whole))
        for name, content in contents.items():
            write_json(beside / name, content)
        beside.rename(out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(out.parent)
    return len(parts)


def _weights_paths(folder: Path) -> Sequence[Path]:
    """The one file of weights, or all of its pieces; `CheckpointError` that names a piece that is missing."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    return find_shards(folder) or [folder / WEIGHTS]


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
