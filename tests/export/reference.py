"""The language model in NumPy float64, written from the paper's equations and from nothing in `model` or `export`.

An independent reference for graphs: one sequence, one step, one level and one gate at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig

Floats32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-x))
    return result


def halve(x: Floats, config: ModelConfig, k: int, kernels: Floats | None) -> Floats:
    """Level k + 1 (k from 1) of a pyramid, `[ceil(n / 2)]`, from level k `[n]`."""
    outputs = range(-(-len(x) // 2))
    if config.subsampling == "skip":
        return x[::2]
    if config.subsampling == "average":
        half = 1 if config.average_kernels == "paper" else 1 + config.levels - 1 - k
        width = 2 * half + 1
        return np.array([x[max(0, 2 * i - half) : 2 * i + half + 1].sum() / width for i in outputs])
    if config.subsampling == "max":
        return np.array([x[max(0, 2 * i - 1) : 2 * i + 2].max() for i in outputs])
    assert kernels is not None
    padded = np.concatenate([[0], x, [0]])
    filtered: Floats = np.tanh([kernels[k - 1] @ padded[2 * i : 2 * i + 3] for i in outputs])
    return filtered


def transform(x: Floats, config: ModelConfig, kind: str, weights: Mapping[str, Floats], prefix: str) -> Floats:
    """Gate pre-activations `[4, M]` of one vector `[N]`."""
    bias = weights[f"{prefix}.bias"]
    if kind == "linear":
        return np.stack([w @ x for w in weights[f"{prefix}.weight"]]) + bias
    if kind == "grouped":
        parts = np.split(x, config.groups)
        gates = [
            [block @ part for block, part in zip(gate, parts, strict=True)] for gate in weights[f"{prefix}.weight"]
        ]
        return np.stack([np.concatenate(gate) for gate in gates]) + bias
    levels = []
    for k in range(1, config.levels + 1):
        levels.append(np.stack([w @ x for w in weights[f"{prefix}.levels.{k - 1}.weight"]]))
        if k < config.levels:
            x = halve(x, config, k, weights.get(f"{prefix}.kernels"))
    return np.concatenate(levels, axis=1) + bias


def mogrified(x: Floats, h: Floats, config: ModelConfig, weights: Mapping[str, Floats], prefix: str) -> list[Floats]:
    """Input `[N]` and context `[M]` after they gated each other."""
    pair = [x, h]
    for i in range(config.mogrifier_rounds):
        name, reader, gated = f"{prefix}.rounds.{i}", (i + 1) % 2, i % 2
        matrix = (
            weights[f"{name}.weight"]
            if config.mogrifier_rank is None
            else weights[f"{name}.left"] @ weights[f"{name}.right"]
        )
        pair[gated] = 2 * sigmoid(matrix @ pair[reader]) * pair[gated]
    return pair


class ReferenceModel:
    """Reads one sequence at a time."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Floats32]) -> None:
        self.config = config
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}

    def advance(self, ids: npt.NDArray[np.int32], state: Floats) -> tuple[Floats, Floats]:
        """Hidden `[T, E]` and the state `[S]` after `ids [T]`, from `state [S]`."""
        config = self.config
        parts = [m for size in config.layer_sizes for m in (size.outputs, size.outputs)]
        states = np.split(state.astype(np.float64), np.cumsum(parts)[:-1])
        hidden = np.empty((len(ids), config.embedding_size))
        for t, word in enumerate(ids):
            x = self.weights["embedding.weight"][word]
            for layer in range(config.layers):
                h, c = states[2 * layer], states[2 * layer + 1]
                x, h = mogrified(x, h, config, self.weights, f"layers.{layer}.mogrifier")
                pre = transform(x, config, config.input_transform, self.weights, f"layers.{layer}.input")
                pre = pre + transform(h, config, config.context_transform, self.weights, f"layers.{layer}.context")
                if config.residual and len(x) == len(h):
                    pre = pre + x
                i, f, g, o = pre
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                x = sigmoid(o) * np.tanh(c)
                states[2 * layer : 2 * layer + 2] = [x, c]
            hidden[t] = x
        return hidden, np.concatenate(states)

    def log_probabilities(self, hidden: Floats) -> Floats:
        """`[N, V]` from `[N, E]`."""
        if self.config.softmaxes == 1:
            return self._softmax(hidden)
        priors = hidden @ self.weights["decoder.prior.weight"].T
        latent = np.tanh(hidden @ self.weights["decoder.latent.weight"].T + self.weights["decoder.latent.bias"])
        mixed = np.zeros(1)
        for k, part in enumerate(np.split(latent, self.config.softmaxes, axis=-1)):
            share = np.exp(priors[:, k]) / np.exp(priors).sum(axis=-1)
            mixed = mixed + share[:, None] * np.exp(self._softmax(part))
        result: Floats = np.log(mixed)
        return result

    def _softmax(self, hidden: Floats) -> Floats:
        logits = hidden @ self.weights["embedding.weight"].T + self.weights["decoder.bias"]
        logits = logits - logits.max(axis=-1, keepdims=True)
        result: Floats = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return result
