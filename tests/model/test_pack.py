"""A checkpoint packed into small files: half precision, whole or not there, and never mixed up with another."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from model.checkpoint import load_checkpoint, load_weights, pack_checkpoint, save_checkpoint, weights_sha256
from model.config import ModelConfig
from model.conventions import Convention
from model.errors import CheckpointError, PRUError
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary
from tests.model.faults import Moments, contents, ctrl_c, full_disk, wait_for_no_disk

LIMIT = 4_000
FIRST = "model-00001-of-00006.safetensors"


def checkpoint(folder: Path, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    vocabulary = Vocabulary.from_lines(["one two three four five six seven eight nine ten"], Convention.WIKITEXT)
    sizes = {"embedding_size": 16, "hidden_size": 48, "layers": 2, "groups": 4, "levels": 2}
    model = LanguageModel(ModelConfig.from_dict(sizes | {"vocabulary_size": len(vocabulary)}))
    save_checkpoint(folder, model, vocabulary, {"seed": seed})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    assert pack_checkpoint(folder, tmp_path / "packed", LIMIT) == 6
    return tmp_path / "packed"


def test_every_file_is_within_the_limit_and_all_hold_the_checkpoint_in_half_precision(
    folder: Path, packed: Path
) -> None:
    files = sorted(packed.glob("*.safetensors"))
    assert files[0].name == FIRST
    assert len(files) == 6
    assert max(path.stat().st_size for path in files) <= LIMIT
    assert {array.dtype for path in files for array in load_file(path).values()} == {np.dtype(np.float16)}
    model, vocabulary, record = load_checkpoint(packed)
    whole, words, then = load_checkpoint(folder)
    assert (vocabulary.words, record, model.config) == (words.words, then, whole.config)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.half().float()), name


def test_a_pack_can_be_packed_again_and_keeps_its_weights(packed: Path, tmp_path: Path) -> None:
    assert pack_checkpoint(packed, tmp_path / "again", 100_000) == 1
    once, again = load_weights(packed), load_weights(tmp_path / "again")
    assert once.keys() == again.keys()
    assert all(np.array_equal(once[name], again[name]) for name in once)


def test_the_sum_of_weights_tells_every_file(folder: Path, packed: Path, tmp_path: Path) -> None:
    assert weights_sha256(folder) == weights_sha256(folder)
    assert weights_sha256(folder) != weights_sha256(checkpoint(tmp_path / "other", seed=2))
    before = weights_sha256(packed)
    last = sorted(packed.glob("*.safetensors"))[-1]
    save_file({name: array + 1 for name, array in load_file(last).items()}, last)
    assert weights_sha256(packed) != before


def test_a_missing_file_of_a_pack_is_named(packed: Path) -> None:
    (packed / "model-00003-of-00006.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00003-of-00006\.safetensors is missing; bring all 6 pieces"):
        load_checkpoint(packed)


@pytest.mark.parametrize("index", [1, 2, 6])
def test_a_file_of_another_pack_is_refused_even_where_its_shapes_fit(packed: Path, tmp_path: Path, index: int) -> None:
    pack_checkpoint(checkpoint(tmp_path / "other", seed=2), tmp_path / "other-packed", LIMIT)
    name = f"model-0000{index}-of-00006.safetensors"
    shutil.copy(tmp_path / "other-packed" / name, packed / name)
    with pytest.raises(CheckpointError, match="is of another checkpoint than model-00001") as error:
        load_checkpoint(packed)
    assert "\n" not in str(error.value)


def test_a_damaged_file_of_a_pack_is_named(packed: Path) -> None:
    path = packed / FIRST
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{FIRST} cannot be read"):
        load_checkpoint(packed)


def test_weights_too_large_for_half_precision_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["decoder.bias"][0] = 1e5
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.bias holds values that are not finite in half precision"):
        pack_checkpoint(folder, tmp_path / "packed", LIMIT)
    assert not (tmp_path / "packed").exists()


def test_a_limit_below_one_row_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"300 bytes do not hold one row of decoder\.bias"):
        pack_checkpoint(folder, tmp_path / "packed", 300)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_that_is_there_already_is_left_alone(folder: Path, packed: Path) -> None:
    before = contents(packed)
    with pytest.raises(CheckpointError, match="exists; give another --out folder"):
        pack_checkpoint(folder, packed, LIMIT)
    assert contents(packed) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "training.json", "model.safetensors"])
def test_a_damaged_checkpoint_is_refused_before_anything_is_written(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff{")
    with pytest.raises(PRUError, match=name):
        pack_checkpoint(folder, tmp_path / "packed", LIMIT)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


Fault = Callable[[Path, int], AbstractContextManager[Moments]]


@pytest.mark.parametrize(("fault", "error"), [(full_disk, OSError), (ctrl_c, KeyboardInterrupt)])
def test_packing_stopped_at_any_moment_leaves_the_whole_pack_or_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, error: type[BaseException]
) -> None:
    wait_for_no_disk(monkeypatch)
    pack_checkpoint(folder, tmp_path / "expected", LIMIT)
    expected = contents(tmp_path / "expected")
    for moment in itertools.count():
        parent = tmp_path / str(moment)
        with fault(parent, moment) as moments:
            try:
                pack_checkpoint(folder, parent / "packed", LIMIT)
            except error:
                pass
            else:
                break
        found = contents(parent) if parent.exists() else {}
        whole = {f"packed/{name}": content for name, content in expected.items()}
        assert found in ({}, whole), moments.struck
    assert not moments.struck
    assert moment > 15


def test_a_process_killed_while_it_packs_leaves_nothing_that_is_taken_for_a_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Killed: nothing is cleaned up any more.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    for moment in itertools.count():
        parent = tmp_path / str(moment)
        with ctrl_c(parent, moment) as moments:
            try:
                pack_checkpoint(folder, parent / "packed", LIMIT)
            except KeyboardInterrupt:
                pass
            else:
                break
        if (parent / "packed").exists():
            load_checkpoint(parent / "packed")
    assert not moments.struck


def test_the_record_goes_along(packed: Path) -> None:
    assert json.loads((packed / "training.json").read_text()) == {"seed": 1}
