"""Records of runs as training writes them, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.corpus import KNOWN
from training.run_record import RunRecord

Record = dict[str, Any]


def record(preset: str = "pru-g4", data: str = "ptb", *, epochs: int = 2, **changes: Any) -> Record:
    """The record of a finished run of the paper's largest model; `changes` replace its fields."""
    return {
        "preset": preset,
        "model": model(),
        "recipe": {"optimizer": "sgd", "learning_rate": 20.0, "epochs": epochs},
        "data": {"name": data, "sha256": dict(KNOWN[data].sha256)},
        "seed": 1,
        "parameters": 18_900_000,
        "curve": curve(*[(300 - 100 * epoch, 250 - 80 * epoch) for epoch in range(epochs)]),
        "seconds": 4830.0,
        "finished": True,
        "hardware": {"processor": "Two Cores", "cores": 2, "threads": 2},
        "perplexity": {"valid": 65.0, "test": 62.0},
    } | changes


def model(**changes: Any) -> Record:
    """The architecture of the paper's largest model."""
    sizes = {"vocabulary_size": 10_000, "embedding_size": 400, "hidden_size": 1400, "layers": 3}
    return sizes | {"groups": 4, "levels": 2} | changes


def ablation(groups: int, levels: int) -> Record:
    """The one-layer architecture of section 4.4."""
    return model(embedding_size=600, hidden_size=600, layers=1, groups=groups, levels=levels)


def curve(*points: tuple[float, float]) -> list[Record]:
    """A learning curve of training and validation perplexity."""
    return [
        {"epoch": epoch, "train_perplexity": train, "valid_perplexity": valid}
        for epoch, (train, valid) in enumerate(points, 1)
    ]


def read(*records: Record) -> list[RunRecord]:
    """The same as `read_run` reads them."""
    return [RunRecord.model_validate(one) for one in records]


def saved(folder: Path, one: Record) -> Path:
    """The folder of a run with that record."""
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(one))
    return folder
