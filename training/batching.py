"""Token streams cut into batches for truncated back-propagation through time.

Boundary: arrays of ids in, pairs of inputs and targets out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from model.errors import CorpusError
from model.vocabulary import Ids

SHORTEST = 5
"""Fewest steps of an update of varied length."""
HALVED = 0.05
"""Share of updates of varied length that are about half as long."""
DEVIATION = 5.0
"""Standard deviation of varied lengths, in steps."""


def context_and_targets(ids: Ids, eos_id: int) -> Ids:
    """The stream with the initial `<eos>` in front: every token of `ids` is then a target with a context."""
    return np.concatenate([np.array([eos_id], np.int32), ids])


def as_rows(stream: Ids, rows: int) -> Tensor:
    """Cut a stream of n ids into `rows` equal, consecutive pieces `[rows, n // rows]`; what is left over is dropped."""
    length = len(stream) // rows
    if length < 2:
        raise CorpusError(
            f"{len(stream)} tokens are too few: they are read in {rows} rows of at least two; give more text"
        )
    return torch.from_numpy(stream[: rows * length].astype(np.int64)).view(rows, length)


def partially_shuffled(rows: Tensor, generator: np.random.Generator) -> Tensor:
    """Each of `rows [B, n]` begun at a place of its own, what was before it following its end (Press 2019)."""
    starts = torch.from_numpy(generator.integers(rows.shape[1], size=(len(rows), 1)))
    return rows.gather(1, (torch.arange(rows.shape[1]) + starts) % rows.shape[1])


def fixed_lengths(steps: int, length: int) -> list[int]:
    """Lengths of updates that cover `steps`: all `length`, but for the last."""
    return [min(length, steps - start) for start in range(0, steps, length)]


def varied_lengths(steps: int, length: int, generator: np.random.Generator) -> list[int]:
    """Lengths that cover `steps`, drawn around `length`, or around half of it (Merity et al. 2018, section 5)."""
    lengths: list[int] = []
    left = steps
    while left:
        center = length / 2 if generator.random() < HALVED else length
        drawn = max(SHORTEST, int(generator.normal(center, DEVIATION)))
        lengths.append(min(drawn, left))
        left -= lengths[-1]
    return lengths


def segments(rows: Tensor, lengths: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Consecutive pairs of inputs and targets `[B, length]`; targets are the inputs one step later."""
    for start, stop in itertools.pairwise(itertools.accumulate(lengths, initial=0)):
        yield rows[:, start:stop], rows[:, start + 1 : stop + 1]
