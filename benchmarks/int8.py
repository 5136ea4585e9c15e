"""Static int8 against dynamic int8, and against the memory that its weights are read from.

Boundary: one exported model at a time, no HTTP.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.engine import THREADS
from benchmarks.harness import Row, at_least, at_most, interleaved, milliseconds
from benchmarks.lstm_operators import write_lstm_graphs
from export.graphs import WEIGHTS
from export.weights import fold_model
from model.checkpoint import load_checkpoint, load_weights
from model.onnx_model import OnnxModel

BUFFER_BYTES = 256 << 20
READINGS = 20


def rows(checkpoint: Path, graphs: Path, folder: Path, rounds: int) -> list[Row]:
    """Both comparisons for a checkpoint, whose static int8 graphs are in `graphs`; its dynamic ones go to `folder`."""
    model, _, _ = load_checkpoint(checkpoint)
    static = OnnxModel(graphs.iterdir(), THREADS)
    dynamic = OnnxModel(write_lstm_graphs(fold_model(model.config, load_weights(checkpoint)), folder), THREADS)
    return [_operators(static, dynamic, rounds), _memory(static, (graphs / WEIGHTS).stat().st_size, rounds)]


def _operators(static: OnnxModel, dynamic: OnnxModel, rounds: int) -> Row:
    ids = np.random.default_rng(4).integers(static.vocabulary_size, size=(32, 33), dtype=np.int32)
    zeros = np.zeros((32, static.state_size), np.float32)

    def score(model: OnnxModel) -> None:
        hidden, _ = model.advance(ids[:, :-1], np.full(32, 32, np.int32), zeros)
        model.score(hidden.reshape(-1, model.hidden_size), ids[:, 1:].reshape(-1))

    times = interleaved({"dynamic": lambda: score(dynamic), "static": lambda: score(static)}, rounds)
    return at_least(
        "32 x 32 tokens scored: dynamic int8 LSTM operators / static int8",
        milliseconds(**times),
        times["dynamic"] / times["static"],
        0.95,
    )


def _memory(engine: OnnxModel, weight_bytes: int, rounds: int) -> Row:
    """A step with its softmax reads every weight once: nothing can take less than reading them does."""
    zeros, one = np.zeros((1, engine.state_size), np.float32), np.ones(1, np.int32)

    def step() -> None:
        hidden, _ = engine.advance(one[:, None], one, zeros)
        engine.top_k(hidden[:, -1], 5)

    seconds = interleaved({"step": step}, rounds)["step"]
    bandwidth = memory_bandwidth()
    reading = weight_bytes / bandwidth
    return at_most(
        "one token read, top 5 predicted, batch 1: against reading its int8 weights from memory once",
        f"{milliseconds(step=seconds, reading=reading)}, {weight_bytes / 1e6:.1f} MB at {bandwidth / 1e9:.1f} GB/s",
        seconds / reading,
        2.5,
    )


def memory_bandwidth() -> float:
    """Bytes a second that `THREADS` threads read of a buffer larger than any cache: the best of several readings."""
    parts = np.array_split(np.arange(BUFFER_BYTES // 8), THREADS)
    best = float("inf")
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(READINGS):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - began)
    return BUFFER_BYTES / best
