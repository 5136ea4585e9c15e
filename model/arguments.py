"""What every engine checks of its arguments before it runs: shapes, ids and lengths.

Boundary: NumPy arrays; raises `EngineError` in the same words whatever runs the model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.errors import EngineError

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def check_advance(ids: Ids, lengths: Ids, state: Floats, *, vocabulary_size: int, state_size: int) -> None:
    """`ids [B, T]`, `lengths [B]` of 0 to T, `state [B, S]`, and every id that is read a word."""
    if ids.ndim != 2 or lengths.shape != ids.shape[:1] or state.shape != (len(ids), state_size):
        raise EngineError(
            f"advance needs ids [B, T], lengths [B] and state [B, {state_size}], "
            f"not {list(ids.shape)}, {list(lengths.shape)} and {list(state.shape)}"
        )
    if _outside(lengths, ids.shape[1] + 1):
        raise EngineError(f"lengths must be 0 to {ids.shape[1]}")
    if _outside(ids[np.arange(ids.shape[1]) < lengths[:, None]], vocabulary_size):
        raise EngineError(f"ids must be 0 to {vocabulary_size - 1}")


def check_hidden(hidden: Floats, hidden_size: int) -> None:
    """`hidden [N, E]`."""
    if hidden.ndim != 2 or hidden.shape[1] != hidden_size:
        raise EngineError(f"hidden vectors must be [N, {hidden_size}], not {list(hidden.shape)}")


def check_k(k: int) -> None:
    """At least one word is asked for."""
    if k < 1:
        raise EngineError(f"top_k needs k of at least 1, not {k}")


def check_targets(hidden: Floats, targets: Ids, vocabulary_size: int) -> None:
    """`targets [N]`, a word for each of `hidden [N, E]`."""
    if targets.shape != hidden.shape[:1] or _outside(targets, vocabulary_size):
        raise EngineError(f"score needs a target below {vocabulary_size} for each of {len(hidden)} vectors")


def _outside(values: Ids, size: int) -> bool:
    """Whether any value is not in 0..size-1."""
    return bool(values.size) and (int(values.min()) < 0 or int(values.max()) >= size)
