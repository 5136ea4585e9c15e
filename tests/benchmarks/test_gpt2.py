"""The transformer that the PRU is compared with computes what GPT-2 computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.gpt2 import BLOCK, EPSILON, TOP, Decoder, Floats, Shape, write_graph

Doubles = npt.NDArray[np.float64]

SHAPE = Shape(vocabulary_size=300, width=BLOCK, heads=4, layers=2, positions=16)


class Weights:
    """Random weights, kept by name, large enough for every part of the model to matter."""

    def __init__(self) -> None:
        self.held: dict[str, Floats] = {}
        self._generator = np.random.default_rng(1)

    def __call__(self, name: str, shape: tuple[int, ...]) -> Floats:
        scale = 0.5 if len(shape) == 1 or name in ("wte", "wpe") else shape[0] ** -0.5
        weight = scale * self._generator.standard_normal(shape, dtype=np.float32)
        self.held[name] = (weight + 1 if name.endswith(".g") else weight).astype(np.float32)
        return self.held[name]


def log_probabilities(weights: dict[str, Floats], ids: list[int]) -> Doubles:
    """After each of `ids`, by GPT-2's equations for a whole text at once, in float64."""
    held = {name: weight.astype(np.float64) for name, weight in weights.items()}

    def norm(name: str, x: Doubles) -> Doubles:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        normalised: Doubles = centred / spread * held[f"{name}.g"] + held[f"{name}.b"]
        return normalised

    def linear(name: str, x: Doubles) -> Doubles:
        product: Doubles = x @ held[f"{name}.w"] + held[f"{name}.b"]
        return product

    def softmax(x: Doubles) -> Doubles:
        exponential = np.exp(x - x.max(axis=-1, keepdims=True))
        share: Doubles = exponential / exponential.sum(axis=-1, keepdims=True)
        return share

    def heads(x: Doubles) -> Doubles:
        return x.reshape(len(ids), SHAPE.heads, -1).transpose(1, 0, 2)

    def gelu(x: Doubles) -> Doubles:
        result: Doubles = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return result

    unseen = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    x = held["wte"][ids] + held["wpe"][: len(ids)]
    for index in range(SHAPE.layers):
        q, k, v = map(heads, np.split(linear(f"h.{index}.attn.c_attn", norm(f"h.{index}.ln_1", x)), 3, axis=-1))
        attended = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]) + unseen) @ v
        x = x + linear(f"h.{index}.attn.c_proj", attended.transpose(1, 0, 2).reshape(len(ids), -1))
        inner = gelu(linear(f"h.{index}.mlp.c_fc", norm(f"h.{index}.ln_2", x)))
        x = x + linear(f"h.{index}.mlp.c_proj", inner)
    logits = norm("ln_f", x) @ held["wte"].T
    likely: Doubles = np.log(softmax(logits))
    return likely


def test_steps_over_a_text_give_the_likeliest_words_of_the_float_model(tmp_path: Path) -> None:
    weights = Weights()
    path = write_graph(SHAPE, weights, tmp_path / "graph")
    ids = np.random.default_rng(2).integers(SHAPE.vocabulary_size, size=12).tolist()
    expected = log_probabilities(weights.held, ids)
    decoder = Decoder(path, SHAPE, capacity=16, threads=1)
    for past, token in enumerate(ids):
        best, values = decoder.step(token, past)
        # Int8 moves logits, whose standard deviation is 7, by up to 0.3; a part left out moves them by far more.
        np.testing.assert_allclose(values, expected[past][best], atol=0.4)
        np.testing.assert_allclose(values, np.sort(expected[past])[: -TOP - 1 : -1], atol=0.4)
