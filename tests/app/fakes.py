"""A small real model behind the engine's protocol, in numpy, and the parts a service needs around it."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from app.served_model import ServedModel
from model.conventions import Convention
from model.vocabulary import Vocabulary

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

CORPUS = """
= The Harbour =
the harbour is small , but the boats that leave the harbour are not .
The meaning of the lights is known : red is left , green is right .
a well @-@ known captain said , " the sea is the meaning of life . "
<unk> did not agree , and don 't ask why ; 1 @,@ 200 boats left in 1897 .
Captain Marlow 's boat was the first to leave and the last to come home .
""".strip().splitlines()
"""Lines as WikiText writes them, made for these tests."""


def small_vocabulary() -> Vocabulary:
    """The words of `CORPUS`."""
    return Vocabulary.from_lines(CORPUS, Convention.WIKITEXT)


class NumpyEngine:
    """One LSTM layer with random weights and a tied decoder. Each `advance` calls `before`, which may wait or fail."""

    name = "numpy"
    precision = "float32"

    def __init__(self, vocabulary_size: int, size: int = 8, before: Callable[[], None] | None = None) -> None:
        generator = np.random.default_rng(20)
        self.vocabulary_size = vocabulary_size
        self.size = self.hidden_size = size
        self.state_size = 2 * size
        self.step_lengths = [16, 4, 1]
        self.embedding = generator.normal(0, 1, (vocabulary_size, size)).astype(np.float32)
        self.bias = generator.normal(0, 1, vocabulary_size).astype(np.float32)
        self.input_weight = generator.normal(0, 0.7, (size, 4 * size)).astype(np.float32)
        self.context_weight = generator.normal(0, 0.7, (size, 4 * size)).astype(np.float32)
        self.before = before
        self.calls: list[tuple[int, int]] = []
        self.head_rows = 0
        self.threads: set[int] = set()

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        """Read each row's ids, one step after another."""
        self.calls.append(ids.shape)
        self.threads.add(threading.get_ident())
        if self.before is not None:
            self.before()
        assert ids.dtype == np.int32
        assert lengths.dtype == np.int32
        state = state.copy()
        hidden = np.full((*ids.shape, self.size), np.nan, np.float32)
        for row, length in enumerate(lengths):
            for step in range(length):
                hidden[row, step], state[row] = self.step(int(ids[row, step]), state[row])
        return hidden, state

    def step(self, token_id: int, state: Floats) -> tuple[Floats, Floats]:
        """Read one id from a packed state row `[h, c]`."""
        h, c = np.split(state, 2)
        gates = self.embedding[token_id] @ self.input_weight + h @ self.context_weight
        i, f, g, o = np.split(gates, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        return h, np.concatenate([h, c])

    def log_probabilities(self, hidden: Floats) -> Floats:
        """Log-softmax of the tied decoder."""
        self.head_rows += len(hidden)
        assert not np.isnan(hidden).any()
        logits = np.stack([row @ self.embedding.T + self.bias for row in hidden])
        top = logits.max(axis=1, keepdims=True)
        values: Floats = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        return values

    def top_k(self, hidden: Floats, k: int) -> tuple[Ids, Floats]:
        """Best first, ties by lower id."""
        values = self.log_probabilities(hidden)
        ids = np.argsort(-values, axis=1, kind="stable")[:, :k].astype(np.int32)
        return ids, np.take_along_axis(values, ids, axis=1)

    def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
        """Log-probability and rank of each target."""
        values = self.log_probabilities(hidden)
        found = np.take_along_axis(values, targets[:, None], axis=1)
        ranks = 1 + (values > found).sum(axis=1)
        return found[:, 0], ranks.astype(np.int32)


class Gate:
    """Holds the engine at its next call until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(20)

    def shut(self) -> None:
        self.reached.clear()
        self.open.clear()

    async def wait_until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 20)


def fake_model(vocabulary: Vocabulary | None = None, build: Callable[[int], NumpyEngine] = NumpyEngine) -> ServedModel:
    """A model to serve whose engine `build` makes from the vocabulary's size."""
    vocabulary = vocabulary or small_vocabulary()
    return ServedModel(
        name="tiny",
        sha256="0" * 64,
        vocabulary=vocabulary,
        card={
            "architecture": {"vocabulary_size": len(vocabulary)},
            "metrics": [{"data": "none", "precision": "float32", "perplexity": 1.5, "tokens": 2}],
            "training": {"data": "none"},
            "licence": "MIT",
            "attribution": None,
            "intended_use": "tests",
            "limitations": None,
        },
        build_engine=lambda: build(len(vocabulary)),
    )


class LogLines(io.StringIO):
    """A log file in memory, which may be full."""

    is_full = False

    def write(self, text: str, /) -> int:
        """Write, as long as there is room."""
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)

    def events(self, event: str) -> list[dict[str, Any]]:
        """Every line of one event."""
        return [line for line in map(json.loads, self.getvalue().splitlines()) if line["event"] == event]
