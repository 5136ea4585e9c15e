"""Checkpoint files, when the disk fills up or Ctrl-C comes at any moment of writing them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import ModelConfig
from model.conventions import Convention
from model.errors import CheckpointError
from model.files import write_atomically
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary
from tests.model.faults import Moments, contents, ctrl_c, full_disk, wait_for_no_disk

Fault = Callable[[Path, int], AbstractContextManager[Moments]]

VOCABULARY = Vocabulary.from_lines(["one two three two"], Convention.WIKITEXT)
FAULTS = pytest.mark.parametrize(
    ("fault", "error"), [(full_disk, OSError), (ctrl_c, KeyboardInterrupt)], ids=["full-disk", "ctrl-c"]
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_no_disk(monkeypatch)


def model(value: float) -> LanguageModel:
    """A model whose weights all have one value."""
    made = LanguageModel(
        ModelConfig(vocabulary_size=len(VOCABULARY), embedding_size=8, hidden_size=16, layers=2, groups=4, levels=2)
    )
    for parameter in made.parameters():
        torch.nn.init.constant_(parameter, value)
    return made


@FAULTS
def test_a_file_is_the_old_or_the_new_one_whatever_stops_the_writing(
    tmp_path: Path, fault: Fault, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    struck = []
    for moment in itertools.count():
        write_atomically(path, b"old" * 1000)
        with fault(tmp_path, moment) as moments:
            try:
                write_atomically(path, b"new" * 1000)
            except error:
                assert moments.struck
        if not moments.struck:
            break
        struck.append(moments.struck)
        assert set(contents(tmp_path)) == {"file"}, moments.struck
        assert path.read_bytes() in (b"old" * 1000, b"new" * 1000), moments.struck
    assert path.read_bytes() == b"new" * 1000
    assert {name.removeprefix("before ").removeprefix("after ") for name in struck} >= {"open", "fsync", "replace"}


@FAULTS
def test_a_checkpoint_that_is_written_anew_is_usable_whatever_stops_the_writing(
    tmp_path: Path, fault: Fault, error: type[BaseException]
) -> None:
    folder = tmp_path / "checkpoint"
    for moment in itertools.count():
        save_checkpoint(folder, model(0.25), VOCABULARY, {"run": "old"})
        old = contents(folder)
        with fault(tmp_path, moment) as moments:
            try:
                save_checkpoint(folder, model(0.5), VOCABULARY, {"run": "new"})
            except error:
                assert moments.struck
        if not moments.struck:
            break
        assert contents(folder).keys() == old.keys(), moments.struck
        loaded, _, record = load_checkpoint(folder)
        value = float(loaded.decoder.bias[0].detach())
        assert (value, record["run"]) in {(0.25, "old"), (0.5, "old"), (0.5, "new")}, moments.struck
    assert moment >= 16
    assert load_checkpoint(folder)[2] == {"run": "new"}


@FAULTS
def test_a_first_checkpoint_that_was_stopped_is_no_checkpoint_and_says_which_file_is_missing(
    tmp_path: Path, fault: Fault, error: type[BaseException]
) -> None:
    files = {"config.json", "tokenizer.json", "model.safetensors", "training.json"}
    for moment in itertools.count():
        folder = tmp_path / str(moment)
        with fault(folder, moment) as moments:
            try:
                save_checkpoint(folder, model(0.5), VOCABULARY, {"run": "new"})
            except error:
                assert moments.struck
        if not moments.struck:
            break
        found = set(contents(folder)) if folder.exists() else set()
        assert found <= files, moments.struck
        if found == files:
            assert load_checkpoint(folder)[2] == {"run": "new"}
            continue
        with pytest.raises(CheckpointError, match=r"is missing; |is not a folder; ") as refused:
            load_checkpoint(folder)
        assert "\n" not in str(refused.value)
    assert moment >= 16
    assert set(contents(folder)) == files
