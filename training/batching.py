"""Token streams cut into batches for truncated back-propagation through time.

Boundary: arrays of ids in, pairs of inputs and targets out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from model.errors import CorpusError
from model.vocabulary import Ids


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


def segments(rows: Tensor, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Consecutive pairs of inputs and targets `[B, <= length]`; targets are the inputs one step later."""
    last = rows.shape[1] - 1
    for start in range(0, last, length):
        stop = min(start + length, last)
        yield rows[:, start:stop], rows[:, start + 1 : stop + 1]


def segment_count(rows: Tensor, length: int) -> int:
    """Number of pairs that `segments` yields."""
    return -(-(rows.shape[1] - 1) // length)
