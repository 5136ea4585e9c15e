"""What a run reads: ids of every split, and the pieces in which each epoch reads the training text.

Boundary: ids and a recipe in, batches for this process out. Where text comes from is `training.corpus`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from model.vocabulary import Ids, Vocabulary
from training.batching import (
    as_rows,
    context_and_targets,
    fixed_lengths,
    partially_shuffled,
    segments,
    varied_lengths,
)
from training.recipe import Recipe
from training.world import World


@dataclass(frozen=True)
class Data:
    """What a run reads: ids of each split, and where they come from. There need not be a text to report on."""

    name: str
    sha256: dict[str, str]
    vocabulary: Vocabulary
    train: Ids
    valid: Ids
    test: Ids | None
    joined: bool = False
    """Whether the lines of the text's paragraphs were joined."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this text from any other, for the record of a run."""
        return {"name": self.name, "sha256": self.sha256, **({"lines_joined": True} if self.joined else {})}

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of each split that there is."""
        return {split: len(ids) for split, ids in self._splits.items()}

    @property
    def unknown_tokens(self) -> dict[str, int]:
        """How many of them are `<unk>`."""
        return {split: int((ids == self.vocabulary.unk_id).sum()) for split, ids in self._splits.items()}

    @property
    def _splits(self) -> dict[str, Ids]:
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: ids for split, ids in splits.items() if ids is not None}


class Epochs:
    """The batches of every epoch: the same for a seed, whatever was read before."""

    def __init__(self, data: Data, recipe: Recipe, seed: int, world: World) -> None:
        """`CorpusError` where the text is too short for the recipe's batch."""
        self._recipe, self._seed, self._world = recipe, seed, world
        self._rows = as_rows(context_and_targets(data.train, data.vocabulary.eos_id), recipe.batch_size)
        self.updates = [len(self.lengths(epoch)) for epoch in range(recipe.epochs)]
        """Batches of each epoch."""
        self.total = sum(self.updates)
        """Batches of all epochs."""

    def lengths(self, epoch: int) -> list[int]:
        """Steps of each batch of an epoch."""
        steps = self._rows.shape[1] - 1
        if not self._recipe.variable_bptt:
            return fixed_lengths(steps, self._recipe.bptt)
        return varied_lengths(steps, self._recipe.bptt, np.random.default_rng([self._seed, epoch]))

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of an epoch, each `[B / processes, length]`."""
        rows = self._rows
        if self._recipe.partial_shuffle:
            # The lengths' generator goes by seed and epoch too.
            rows = partially_shuffled(rows, np.random.default_rng([self._seed, epoch, 1]))
        return segments(self._world.share(rows), self.lengths(epoch))
