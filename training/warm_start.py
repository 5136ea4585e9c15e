"""Weights of an earlier run to start from: finetuning, or going on elsewhere without what only a resumption has.

Boundary: a checkpoint folder in; weights, and what a record says of where they came from, out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import load_checkpoint, weights_sha256
from model.config import ModelConfig
from model.errors import TrainingError
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class WarmStart:
    """Weights by name, the record of the run they are of, the sum of their files, and the epoch to go on with."""

    weights: dict[str, Tensor]
    source: dict[str, Any]
    sha256: str
    epoch: int = 0
    """Epochs of the schedule that count as done."""

    def record(self) -> dict[str, Any]:
        """For the new run's record: optimiser, carried state and random generator did not come along."""
        return {
            "sha256": self.sha256,
            "preset": self.source.get("preset"),
            "seed": self.source.get("seed"),
            "best_epoch": self.source.get("best_epoch"),
            "epoch": self.epoch,
            **({"started_from": self.source["started_from"]} if "started_from" in self.source else {}),
        }


def warm_start(folder: Path, config: ModelConfig, vocabulary: Vocabulary, epoch: int = 0) -> WarmStart:
    """Read a checkpoint to start from; `TrainingError` that names what differs where it is of another model."""
    model, known, source = load_checkpoint(folder)
    if known.identity != vocabulary.identity:
        raise TrainingError(f"{folder} knows other words than --data; give the text it was trained on")
    then, now = model.config.model_dump(mode="json"), config.model_dump(mode="json")
    if differing := [name for name in now if then[name] != now[name]]:
        name = differing[0]
        raise TrainingError(
            f"{folder} has {name} {then[name]}, this run {now[name]}; give the preset or the --set that it was made by"
        )
    return WarmStart(model.state_dict(), source, weights_sha256(folder), epoch)
