"""A step of the int8 engine against a step of GPT-2, both in ONNX Runtime with the same settings.

Boundary: the comparison. What the transformer is, is `benchmarks.gpt2`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.gpt2 import TOP, Decoder, Floats, Shape, Weights, write_graph
from benchmarks.harness import Row, at_least, interleaved, milliseconds
from model.onnx_model import OnnxModel

THREADS = 2
CACHED = 128
CAPACITY = 256
"""Positions the cache has room for; those that are not filled are not read."""


def row(graphs: Path, folder: Path, rounds: int) -> Row:
    """One token read and the top 5 predicted, at batch 1, by the PRU in `graphs` and after `CACHED` tokens by GPT-2."""
    engine = OnnxModel(sorted(graphs.iterdir()), THREADS)
    shape = Shape()
    decoder = Decoder(write_graph(shape, _random_weights(), folder), shape, CAPACITY, THREADS)
    tokens = np.random.default_rng(4).integers(engine.vocabulary_size, size=CACHED + 1).tolist()
    for past, token in enumerate(tokens[:-1]):
        decoder.step(token, past)

    ids, one = np.array([tokens[-1:]], np.int32), np.ones(1, np.int32)
    state = np.zeros((1, engine.state_size), np.float32)

    def read() -> None:
        hidden, _ = engine.advance(ids, one, state)
        engine.top_k(hidden[:, -1], TOP)

    times = interleaved({"gpt2": lambda: decoder.step(tokens[-1], CACHED), "pru": read}, rounds)
    return at_least(
        f"one token read, top {TOP} predicted, batch 1: GPT-2 of 124 M parameters in int8, {CACHED} cached / int8",
        milliseconds(gpt2=times["gpt2"], int8=times["pru"]),
        times["gpt2"] / times["pru"],
        4,
    )


def _random_weights() -> Weights:
    """What a new GPT-2 begins with."""
    generator = np.random.default_rng(5)

    def weight(name: str, shape: tuple[int, ...]) -> Floats:
        if name.endswith(".g"):
            return np.ones(shape, np.float32)
        if name.endswith(".b"):
            return np.zeros(shape, np.float32)
        return np.float32(0.02) * generator.standard_normal(shape, dtype=np.float32)

    return weight
