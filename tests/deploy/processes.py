"""Training by two processes that something of `deploy/` starts: what they read, and how small it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from model.checkpoint import read_record

TEXT = "the cat sat on the mat and looked at the dog\nthe dog ran to the tree and the bird flew away\n"
SETTINGS = {
    "model.embedding_size": 8,
    "model.hidden_size": 16,
    "recipe.batch_size": 4,
    "recipe.bptt": 10,
    "recipe.bfloat16": "false",
    "recipe.learning_rate": 5,
}
CHECKPOINT = {"config.json", "model.safetensors", "tokenizer.json", "training.json"}


def write_text(path: Path) -> Path:
    """A text that takes a moment to learn."""
    path.write_text(TEXT * 60)
    return path


def small(epochs: int, **settings: Any) -> list[str]:
    """Arguments that make a run small."""
    changes = [word for name, value in (SETTINGS | settings).items() for word in ("--set", f"{name}={value}")]
    return ["--device", "cpu", "--threads", "1", "--epochs", f"{epochs}", *changes]


def assert_two_have_finished(out: Path) -> None:
    """The folder holds what two processes have made, to the end."""
    assert {path.name for path in out.iterdir()} == CHECKPOINT
    record = read_record(out)
    assert record["processes"] == 2
    assert record["finished"] is True


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints are bit for bit the same."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
