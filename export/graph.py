"""The model's graphs: unrolled steps and the head, in any arithmetic.

Boundary: what is computed. How a product is computed (float32 or int8) is an `Arithmetic`'s. Graph values are named in
`model.onnx_model`. Inside the recurrence everything is laid out `[g, B, m]`, one slice a group.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from export.arithmetic import Arithmetic, StepWeight
from export.builder import GraphBuilder, WeightStore
from export.mogrifier import build_gating, mogrify
from export.transform import bounds_of_views, offsets, step_transform, step_weights, views
from export.weights import Floats, FoldedLayer, FoldedMixture, FoldedModel
from model.onnx_model import SOFTMAXES


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
        name = f"layers.{index}"
        if layer.rounds:
            gating = build_gating(graph, arithmetic, name, layer, bound)
            context = gating.context
            inputs = graph.reshape(x, length, -1, layer.size.inputs)
        else:
            gating = None
            context = step_weights(graph, arithmetic, f"{name}.context", layer.context, 1.0)
            bias = layer.bias + offsets(context)
            inputs = _input(graph, f"{name}.input", layer, arithmetic, bias, x, bound, length)
        h, c = (
            graph.op("Transpose", graph.reshape(part, -1, groups, layer.size.outputs // groups), perm=[1, 0, 2])
            for part in packed[2 * index : 2 * index + 2]
        )
        hs, cs = [h], [c]
        for step in graph.split(inputs, axis=0, parts=length):
            pre, read = mogrify(graph, arithmetic, layer, gating, step, h) if gating else (step, h)
            h, c = _step(graph, layer, arithmetic, context, pre, read, c)
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
    if model.mixture:
        likely = _mixed(graph, arithmetic, hidden, model.mixture, model.decoder_bias)
    else:
        likely = graph.op("LogSoftmax", arithmetic.logits(graph, hidden, model.decoder_bias), axis=-1)
    graph.output(likely, "log_probabilities", TensorProto.FLOAT, ["rows", config.vocabulary_size])
    # A row's softmaxes are computed together: whoever runs the graph takes fewer rows at a time.
    return graph.build(**({SOFTMAXES: str(config.softmaxes)} if model.mixture else {}))


def _mixed(graph: GraphBuilder, arithmetic: Arithmetic, hidden: str, mixture: FoldedMixture, bias: Floats) -> str:
    """Log-probabilities `[rows, V]` of a mixture of K softmaxes over K latent vectors.

    One product for all of them reads the table once. The sum's logarithm is `ReduceLogSum`: of `ReduceSum` and `Log`,
    the last bit was found to depend on what shares the batch.
    """
    experts, size = mixture.prior.shape[1], len(mixture.prior)
    nothing = np.zeros(experts, np.float32)
    prior = arithmetic.product(graph, hidden, 1.0, "decoder.prior", mixture.prior, nothing)
    latent = graph.op("Tanh", arithmetic.product(graph, hidden, 1.0, "decoder.latent", mixture.latent, mixture.bias))
    logits = arithmetic.logits(graph, graph.reshape(latent, -1, size), bias)
    each = graph.reshape(graph.op("LogSoftmax", logits, axis=-1), -1, experts, len(bias))
    weight = graph.reshape(graph.op("LogSoftmax", prior, axis=-1), -1, experts, 1)
    joint = graph.op("Add", each, weight)
    largest = graph.op("ReduceMax", joint, graph.integers(1))
    shares = graph.op("Exp", graph.op("Sub", joint, largest))
    total = graph.op("Add", graph.op("ReduceLogSum", shares, graph.integers(1)), largest)
    return graph.reshape(total, -1, len(bias))


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
    limits = bounds_of_views(layer.input, bound)
    for k, (view, limit) in enumerate(zip(views(graph, layer.input, x), limits, strict=True)):
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
    context: list[StepWeight],
    pre: str,
    h: str,
    c: str,
) -> tuple[str, str]:
    """Eq. 6: the state `[g, B, m]` after one step, given the input's part of Eq. 5 `[g, B, 4 * m]`."""
    from_context = step_transform(graph, arithmetic, layer.context, context, h)
    i, f, g, o = graph.split(graph.op("Add", from_context, pre), axis=2, parts=4)
    kept = graph.op("Mul", graph.op("Sigmoid", f), c)
    c = graph.op("Add", kept, graph.op("Mul", graph.op("Sigmoid", i), graph.op("Tanh", g)))
    return graph.op("Mul", graph.op("Sigmoid", o), graph.op("Tanh", c)), c
