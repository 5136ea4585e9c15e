"""Mogrifier gating inside a graph: before a step, input and context gate each other in turn.

Boundary: one layer's input and context of one step in; the input's part of Eq. 5 and the gated context out. The gates
couple all groups of a context, so what a step reads is laid out `[1, B, n]` here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.arithmetic import Arithmetic, StepWeight
from export.builder import GraphBuilder
from export.transform import offsets, step_transform, step_weights
from export.weights import Floats, FoldedLayer


@dataclass(frozen=True)
class Gating:
    """A gated layer's constants in one graph: of each round's matrices and of its transforms, and its bias `[4, M]`."""

    name: str
    rounds: tuple[tuple[StepWeight, ...], ...]
    input: list[StepWeight]
    context: list[StepWeight]
    bias: Floats


def build_gating(graph: GraphBuilder, arithmetic: Arithmetic, name: str, layer: FoldedLayer, bound: float) -> Gating:
    """The constants of the layer called `name`, whose input is at most `bound` and whose context at most 1.

    A gate is below 2, so each gating may double what it gates; trained gates come close to that, so that narrower
    bounds, measured on a text, gain nothing.
    """
    x, h = bound, 1.0
    rounds = []
    for i, (first, *second) in enumerate(layer.rounds):
        limit = x if i % 2 else h
        factors = [arithmetic.step_weight(graph, f"{name}.rounds.{i}", first[None], limit)]
        for matrix in second:
            # Of a product only the sum of all |weights| is certain, many times more than it ever reaches.
            limit *= float(np.abs(first).sum(axis=0).max()) or 1.0
            factors.append(arithmetic.step_weight(graph, f"{name}.rounds.{i}.left", matrix[None], limit, fine=True))
        rounds.append(tuple(factors))
        x, h = (x, 2 * h) if i % 2 else (2 * x, h)
    inputs = step_weights(graph, arithmetic, f"{name}.input", layer.input, x)
    context = step_weights(graph, arithmetic, f"{name}.context", layer.context, h)
    bias = layer.bias + offsets(inputs) + offsets(context)
    return Gating(f"{name}.bias", tuple(rounds), inputs, context, bias)


def mogrify(
    graph: GraphBuilder, arithmetic: Arithmetic, layer: FoldedLayer, gating: Gating, x: str, h: str
) -> tuple[str, str]:
    """Gate `x [1, B, N]` and `h [g, B, m]`: the input's part of Eq. 5 `[g, B, 4 * m]`, and the gated context."""
    groups, outputs = layer.context.groups, layer.size.outputs
    h = graph.reshape(graph.op("Transpose", h, perm=[1, 0, 2]), 1, -1, outputs)
    for i, factors in enumerate(gating.rounds):
        if i % 2:
            h = graph.op("Mul", _gate(graph, arithmetic, factors, x), h)
        else:
            x = graph.op("Mul", _gate(graph, arithmetic, factors, h), x)
    pre = graph.reshape(step_transform(graph, arithmetic, layer.input, gating.input, x), -1, 4, outputs)
    pre = graph.op("Add", pre, graph.constant(gating.name, gating.bias))
    if layer.residual:
        pre = graph.op("Add", pre, graph.reshape(x, -1, 1, outputs))
    pre = graph.op("Transpose", graph.reshape(pre, -1, 4, groups, outputs // groups), perm=[2, 0, 1, 3])
    h = graph.op("Transpose", graph.reshape(h, -1, groups, outputs // groups), perm=[1, 0, 2])
    return graph.reshape(pre, groups, -1, 4 * outputs // groups), h


def _gate(graph: GraphBuilder, arithmetic: Arithmetic, factors: tuple[StepWeight, ...], x: str) -> str:
    """`2 sigmoid(W x)` of `x [1, B, n]`, for W as one matrix or a product of two."""
    for weight in factors:
        x = arithmetic.step_product(graph, x, weight)
        if weight.offset.any():
            x = graph.op("Add", x, graph.constant(f"{weight.operands[0]}.offset", weight.offset))
    return graph.op("Mul", graph.op("Sigmoid", x), graph.scalar(np.float32(2)))
