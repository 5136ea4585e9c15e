"""Checkpoints: what is written is what is read, and every kind of damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from model.checkpoint import load_checkpoint, load_weights, read_config, save_checkpoint
from model.config import ModelConfig
from model.conventions import Convention
from model.errors import CheckpointError, PRUError
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.from_lines(["one two three two"], Convention.WIKITEXT)


@pytest.fixture
def model(vocabulary: Vocabulary) -> LanguageModel:
    sizes = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}
    return LanguageModel(ModelConfig.from_dict(sizes | {"vocabulary_size": len(vocabulary)}))


@pytest.fixture
def folder(tmp_path: Path, model: LanguageModel, vocabulary: Vocabulary) -> Path:
    save_checkpoint(tmp_path / "checkpoint", model, vocabulary, {"seed": 1})
    return tmp_path / "checkpoint"


def test_a_checkpoint_gives_back_model_vocabulary_and_record(
    folder: Path, model: LanguageModel, vocabulary: Vocabulary
) -> None:
    loaded, words, record = load_checkpoint(folder)
    assert not loaded.training
    assert loaded.config == model.config
    assert words.words == vocabulary.words
    assert record == {"seed": 1}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_weights_have_the_documented_names_and_shapes(folder: Path) -> None:
    shapes = {name: array.shape for name, array in load_weights(folder).items()}
    assert shapes == {
        "embedding.weight": (5, 8),
        "decoder.bias": (5,),
        "layers.0.input.levels.0.weight": (4, 12, 8),
        "layers.0.input.levels.1.weight": (4, 4, 4),
        "layers.0.input.bias": (4, 16),
        "layers.0.context.weight": (4, 4, 4, 4),
        "layers.0.context.bias": (4, 16),
        "layers.1.input.levels.0.weight": (4, 6, 16),
        "layers.1.input.levels.1.weight": (4, 2, 8),
        "layers.1.input.bias": (4, 8),
        "layers.1.context.weight": (4, 4, 2, 2),
        "layers.1.context.bias": (4, 8),
    }


def test_half_precision_halves_the_file_and_reads_back_as_float32(
    tmp_path: Path, folder: Path, model: LanguageModel, vocabulary: Vocabulary
) -> None:
    save_checkpoint(tmp_path / "half", model, vocabulary, {}, half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    for name, array in load_weights(tmp_path / "half").items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, load_weights(folder)[name].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "training.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_a_damaged_checkpoint_is_refused_in_one_line_that_names_the_file(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:10] if damage == "truncated" else b"\x00\xff not this")
    with pytest.raises(PRUError, match=name) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_another_format_version_is_refused(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"format_version": 2}))
    with pytest.raises(CheckpointError, match="format version 2, this program reads 1"):
        read_config(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"decoder.bias": np.zeros(6, np.float32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.bias has shape \(6,\), config\.json asks for \(5,\)"):
        load_checkpoint(folder)


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["decoder.bias"][2] = np.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.bias holds values that are not finite"):
        load_weights(folder)


def test_a_vocabulary_of_another_model_is_refused(folder: Path) -> None:
    Vocabulary.from_lines(["one two"], Convention.WIKITEXT).save(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match="holds 4 words, the model 5"):
        load_checkpoint(folder)


def test_a_configuration_with_an_impossible_model_names_file_and_field(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    data["model"]["groups"] = 3
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"config\.json: .*groups=3"):
        read_config(folder)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_config(tmp_path / "nowhere")
