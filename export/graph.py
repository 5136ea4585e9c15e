"""The model's graphs: unrolled steps and the head, in any arithmetic.

Boundary: what is computed. How a product is computed (float32 or int8) is an `Arithmetic`'s. Graph values are named in
`model.onnx_model`. Inside the recurrence everything is laid out `[g, B, m]`, one slice a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from onnx import TensorProto

from export.builder import GraphBuilder, WeightStore
from export.weights import Floats, FoldedLayer, FoldedModel, FoldedTransform
from model.config import Subsampling


@dataclass(frozen=True)
class ContextWeight:
    """A context's matrix in one graph: the constants its product reads, and what the product leaves out, `[g, c]`.

    The offset is added once, outside the recurrence.
    """

    operands: tuple[str, ...]
    offset: Floats


class Arithmetic(Protocol):
    """How the products of a graph are computed. A `bound` says that no |x| is larger; `table_bound` is the table's."""

    table_bound: float

    def embed(self, graph: GraphBuilder, ids: str) -> str:
        """Float32 rows `[R, E]` of the table."""

    def product(self, graph: GraphBuilder, x: str, bound: float, name: str, weight: Floats, bias: Floats) -> str:
        """`x [R, n] @ weight [n, c] + bias [c]`, outside the recurrence."""

    def context_weight(self, graph: GraphBuilder, name: str, weight: Floats) -> ContextWeight:
        """The constants for products by `weight [g, n, c]`."""

    def context_product(self, graph: GraphBuilder, h: str, weight: ContextWeight) -> str:
        """`h [g, B, n] @ weight - offset`, for |h| of at most 1, to `[g, B, c]`."""

    def logits(self, graph: GraphBuilder, hidden: str, bias: Floats) -> str:
        """`hidden [N, E] @ table.T + bias [V]`."""


def build_steps(model: FoldedModel, length: int, arithmetic: Arithmetic, store: WeightStore) -> onnx.ModelProto:
    """The graph that reads up to `length` ids a row (exactly one where `length` is 1)."""
    config, groups = model.config, model.groups
    graph = GraphBuilder(f"steps-{length}", store)
    ids = graph.input("ids", TensorProto.INT32, ["batch", length])
    last = _index_of_last(graph, groups) if length > 1 else ""
    state = graph.input("state", TensorProto.FLOAT, ["batch", config.state_size])

    sizes = [m for size in config.layer_sizes for m in (size.outputs, size.outputs)]
    packed = graph.ops("Split", state, graph.integers(*sizes), outputs=len(sizes), axis=1)
    after = []
    # Time comes first: the rows of a step are then one block.
    x = arithmetic.embed(graph, graph.reshape(graph.op("Transpose", ids, perm=[1, 0]), -1))
    bound = arithmetic.table_bound
    for index, layer in enumerate(model.layers):
        context = [
            arithmetic.context_weight(graph, f"layers.{index}.context.{k}", weight.reshape(*weight.shape[:2], -1))
            for k, weight in enumerate(layer.context.levels)
        ]
        bias = layer.bias + np.concatenate([_by_gate(weight.offset) for weight in context], axis=1)
        pre = _input(graph, f"layers.{index}.input", layer, arithmetic, bias, x, bound, length)
        h, c = (
            graph.op("Transpose", graph.reshape(part, -1, groups, layer.size.outputs // groups), perm=[1, 0, 2])
            for part in packed[2 * index : 2 * index + 2]
        )
        hs, cs = [h], [c]
        for step in graph.split(pre, axis=0, parts=length):
            h, c = _step(graph, layer, arithmetic, context, step, h, c)
            hs.append(h)
            cs.append(c)
        x, bound = _rows(graph, hs[1:], layer), 1.0
        after += (
            [_at(graph, hs, last, layer), _at(graph, cs, last, layer)] if length > 1 else [x, _rows(graph, [c], layer)]
        )
    hidden = graph.op("Transpose", graph.reshape(x, length, -1, config.embedding_size), perm=[1, 0, 2])
    graph.output(hidden, "hidden", TensorProto.FLOAT, ["batch", length, config.embedding_size])
    graph.output(graph.concat(after, axis=1), "state_after", TensorProto.FLOAT, ["batch", config.state_size])
    return graph.build()


def build_head(model: FoldedModel, arithmetic: Arithmetic, store: WeightStore) -> onnx.ModelProto:
    """The graph from hidden vectors to the log-probability of every word."""
    config = model.config
    graph = GraphBuilder("head", store)
    hidden = graph.input("hidden", TensorProto.FLOAT, ["rows", config.embedding_size])
    logits = arithmetic.logits(graph, hidden, model.decoder_bias)
    likely = graph.op("LogSoftmax", logits, axis=-1)
    graph.output(likely, "log_probabilities", TensorProto.FLOAT, ["rows", config.vocabulary_size])
    return graph.build()


def _index_of_last(graph: GraphBuilder, groups: int) -> str:
    """Where each row's state after its own length is: `[g, B]`, into rows laid out as `[T + 1, g, B]`."""
    lengths = graph.op("Cast", graph.input("lengths", TensorProto.INT32, ["batch"]), to=TensorProto.INT64)
    batch = graph.op("Squeeze", graph.op("Shape", lengths))
    row = graph.op("Range", graph.scalar(np.int64(0)), batch, graph.scalar(np.int64(1)))
    group = graph.constant("groups", np.arange(groups)[:, None])
    block = graph.op("Add", graph.op("Mul", lengths, graph.scalar(np.int64(groups))), group)
    return graph.op("Add", graph.op("Mul", block, batch), row)


def _at(graph: GraphBuilder, values: list[str], last: str, layer: FoldedLayer) -> str:
    """Of T + 1 values `[g, B, m]`, the one after each row's length, `[B, M]`."""
    groups = layer.context.groups
    rows = graph.reshape(graph.concat(values, axis=0), -1, layer.size.outputs // groups)
    chosen = graph.op("Transpose", graph.op("Gather", rows, last, axis=0), perm=[1, 0, 2])
    return graph.reshape(chosen, -1, layer.size.outputs)


def _rows(graph: GraphBuilder, values: list[str], layer: FoldedLayer) -> str:
    """T values `[g, B, m]` as the rows `[T * B, M]` that the next layer reads."""
    groups = layer.context.groups
    steps = graph.reshape(graph.concat(values, axis=0), len(values), groups, -1, layer.size.outputs // groups)
    return graph.reshape(graph.op("Transpose", steps, perm=[0, 2, 1, 3]), -1, layer.size.outputs)


def _input(
    graph: GraphBuilder,
    name: str,
    layer: FoldedLayer,
    arithmetic: Arithmetic,
    bias: Floats,
    x: str,
    bound: float,
    length: int,
) -> str:
    """The part of Eq. 5 that does not recur, for all steps at once: `x [T * B, N]` to `[T * g, B, 4 * m]`."""
    outputs, groups = layer.size.outputs, layer.context.groups
    parts = []
    start = 0
    for k, (view, limit) in enumerate(_views(graph, layer.input, x, bound)):
        weight = layer.input.levels[k][0]
        inputs, _, width = weight.shape
        product = arithmetic.product(
            graph, view, limit, f"{name}.{k}", weight.reshape(inputs, -1), bias[:, start : start + width].reshape(-1)
        )
        parts.append(product if width == outputs else graph.reshape(product, -1, 4, width))
        start += width
    pre = graph.concat(parts, axis=2)
    if layer.residual:
        pre = graph.op("Add", graph.reshape(pre, -1, 4, outputs), graph.reshape(x, -1, 1, outputs))
    by_group = graph.op("Transpose", graph.reshape(pre, length, -1, 4, groups, outputs // groups), perm=[0, 3, 1, 2, 4])
    return graph.reshape(by_group, length * groups, -1, 4 * outputs // groups)


def _step(
    graph: GraphBuilder,
    layer: FoldedLayer,
    arithmetic: Arithmetic,
    context: list[ContextWeight],
    pre: str,
    h: str,
    c: str,
) -> tuple[str, str]:
    """Eq. 6: the state `[g, B, m]` after one step, given the input's part of Eq. 5 `[g, B, 4 * m]`."""
    views = _views(graph, layer.context, h, 1.0)
    parts = [arithmetic.context_product(graph, view, weight) for (view, _), weight in zip(views, context, strict=True)]
    if len(parts) > 1:
        by_gate = [
            graph.reshape(part, 1, -1, 4, w.shape[3]) for part, w in zip(parts, layer.context.levels, strict=True)
        ]
        parts = [graph.reshape(graph.concat(by_gate, axis=3), 1, -1, 4 * layer.size.outputs)]
    i, f, g, o = graph.split(graph.op("Add", parts[0], pre), axis=2, parts=4)
    kept = graph.op("Mul", graph.op("Sigmoid", f), c)
    c = graph.op("Add", kept, graph.op("Mul", graph.op("Sigmoid", i), graph.op("Tanh", g)))
    return graph.op("Mul", graph.op("Sigmoid", o), graph.op("Tanh", c)), c


def _by_gate(offset: Floats) -> Floats:
    """A context's offset `[g, 4 * m]` in the order of a bias, `[4, g * m]`."""
    return offset.reshape(len(offset), 4, -1).transpose(1, 0, 2).reshape(4, -1)


def _views(graph: GraphBuilder, transform: FoldedTransform, x: str, bound: float) -> list[tuple[str, float]]:
    """What each level reads (Eq. 3), with its bound: `x [..., n]`, then halved again and again along its last axis."""
    views = [(x, bound)]
    for k in range(len(transform.levels) - 1):
        inputs = transform.levels[k].shape[1]
        if transform.subsampling is Subsampling.MAX:
            a, b, c = _taps(graph, views[-1][0], inputs, -np.inf)
            views.append((graph.op("Max", a, b, c), views[-1][1]))
        else:
            assert transform.kernels is not None
            taps = _taps(graph, views[-1][0], inputs, 0.0)
            a, b, c = (
                graph.op("Mul", tap, graph.scalar(weight))
                for tap, weight in zip(taps, transform.kernels[k], strict=True)
            )
            views.append((graph.op("Tanh", graph.op("Add", graph.op("Add", a, b), c)), 1.0))
    return views


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
