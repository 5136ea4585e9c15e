"""Runs on the small corpus: a trainer, an observer that only listens, and when to stop."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from tests.training.conftest import config
from training.data import Data
from training.recipe import Recipe
from training.resume import Position
from training.trainer import Trainer


class Silent:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.entries: list[dict[str, Any]] = []

    def started(self, position: Position, segments: int, epochs: int) -> None:
        self.segments = segments

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        self.steps.append(position.step)

    def validated(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)


def trainer(
    data: Data, out: Path, settings: Recipe, *, preset: str = "none", seed: int = 5, half: bool = False
) -> Trainer:
    return Trainer(config(data.vocabulary), settings, data, out, preset=preset, seed=seed, half=half)


def stop_after(updates: int) -> Any:
    """A `should_stop` that becomes true after that many updates."""
    asked = itertools.count(1)
    return lambda: next(asked) >= updates
