"""Transforms inside a graph: the sub-samplings of a pyramid, and a whole transform in one step.

Boundary: a value in, a value out; what is done with it is `export.graph`'s.
"""

from __future__ import annotations

import numpy as np

from export.arithmetic import Arithmetic, StepWeight
from export.builder import GraphBuilder
from export.weights import Floats, FoldedTransform
from model.config import Subsampling


def views(graph: GraphBuilder, transform: FoldedTransform, x: str) -> list[str]:
    """What each level reads (Eq. 3): `x [..., n]`, then halved again and again along its last axis."""
    halved = [x]
    for k in range(len(transform.levels) - 1):
        inputs = transform.levels[k].shape[1]
        if transform.subsampling is Subsampling.MAX:
            a, b, c = _taps(graph, halved[-1], inputs, -np.inf)
            halved.append(graph.op("Max", a, b, c))
        else:
            assert transform.kernels is not None
            taps = _taps(graph, halved[-1], inputs, 0.0)
            a, b, c = (
                graph.op("Mul", tap, graph.scalar(weight))
                for tap, weight in zip(taps, transform.kernels[k], strict=True)
            )
            halved.append(graph.op("Tanh", graph.op("Add", graph.op("Add", a, b), c)))
    return halved


def bounds_of_views(transform: FoldedTransform, bound: float) -> list[float]:
    """The largest |value| that each level reads, where the transform reads none beyond `bound`."""
    return [bound] + [bound if transform.subsampling is Subsampling.MAX else 1.0] * (len(transform.levels) - 1)


def step_weights(
    graph: GraphBuilder, arithmetic: Arithmetic, name: str, transform: FoldedTransform, bound: float
) -> list[StepWeight]:
    """Every level's constants for `step_transform`, for |x| of at most `bound`."""
    limits = bounds_of_views(transform, bound)
    return [
        arithmetic.step_weight(graph, f"{name}.{k}", weight.reshape(*weight.shape[:2], -1), limit)
        for k, (weight, limit) in enumerate(zip(transform.levels, limits, strict=True))
    ]


def step_transform(
    graph: GraphBuilder, arithmetic: Arithmetic, transform: FoldedTransform, weights: list[StepWeight], x: str
) -> str:
    """The transform of `x [g, B, n]` inside the recurrence, to `[g, B, 4 * m]`; the weights' offsets are left out."""
    parts = [
        arithmetic.step_product(graph, view, weight)
        for view, weight in zip(views(graph, transform, x), weights, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    widths = [level.shape[3] for level in transform.levels]
    by_gate = [graph.reshape(part, 1, -1, 4, width) for part, width in zip(parts, widths, strict=True)]
    return graph.reshape(graph.concat(by_gate, axis=3), 1, -1, 4 * sum(widths))


def offsets(weights: list[StepWeight]) -> Floats:
    """What `step_transform` leaves out, in the order of a bias, `[4, g * m]`."""
    return np.concatenate(
        [w.offset.reshape(len(w.offset), 4, -1).transpose(1, 0, 2).reshape(4, -1) for w in weights], axis=1
    )


def _taps(graph: GraphBuilder, x: str, inputs: int, beyond: float) -> list[str]:
    """Elements 2i - 1, 2i and 2i + 1 of the last axis for each output i; `beyond` stands outside.

    Three slices and element-wise operators instead of a pooling or a convolution: their results cannot depend on how
    a runtime orders a sum.
    """
    padded = graph.op("Pad", x, graph.integers(1, 1), graph.scalar(np.float32(beyond)), graph.integers(-1))
    last = 2 * (-(-inputs // 2)) - 1
    return [
        graph.op(
            "Slice", padded, graph.integers(tap), graph.integers(last + tap), graph.integers(-1), graph.integers(2)
        )
        for tap in range(3)
    ]
