"""What the service asks of an engine.

Boundary: word ids and arrays. An engine is synchronous and serves one caller at a time; text, queues and asyncio live
above it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Engine(Protocol):
    """A loaded model: advances packed state rows `[h1, c1, h2, c2, ...]` and turns hidden vectors into probabilities.

    Log-probabilities are natural, and equal to the bit between the three calls given the same `hidden`. With int8 they
    are equal to the bit whatever shares the batch, however time is cut, and on any number of threads.
    Every method raises `EngineError` where its arguments do not fit the model or the runtime fails.
    """

    @property
    def name(self) -> str:
        """What runs the model, such as "onnx"."""

    @property
    def precision(self) -> str:
        """ "int8" or "float32"."""

    @property
    def vocabulary_size(self) -> int:
        """V, the number of words."""

    @property
    def hidden_size(self) -> int:
        """E, the floats of a hidden vector. It is the last layer's h: the E floats before the last E of a state row."""

    @property
    def state_size(self) -> int:
        """S, the floats of one packed state row."""

    @property
    def step_lengths(self) -> list[int]:
        """Steps that one call takes at its best, 1 among them."""

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        """Read `lengths[b]` (0 to T) ids of each row of `ids [B, T]` from `state [B, S]`.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state `[B, S]` after each row's last id.
        """

    def log_probabilities(self, hidden: Floats) -> Floats:
        """Log-probability of every word `[N, V]` after `hidden [N, E]`; the caller bounds N."""

    def top_k(self, hidden: Floats, k: int) -> tuple[Ids, Floats]:
        """The k likeliest words after `hidden [N, E]`, best first, ties by lower id.

        Returns ids and log-probabilities, both `[N, k]`; a k beyond V gives V of them.
        """

    def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
        """Log-probability and rank of `targets [N]` after `hidden [N, E]`, in bounded memory whatever N.

        A rank is 1 + the number of words strictly likelier.
        """
