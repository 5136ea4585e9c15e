"""The usual way to int8 on a CPU, as a peer: ONNX Runtime's LSTM operators, quantized dynamically by its own tool.

Boundary: a folded model in, a folder of graphs out, which `model.onnx_model` runs like ours. A group of a layer is one
LSTM operator that reads all of the layer's input. Activations get their scale from the whole batch at every step, so
these graphs' results depend on what shares the batch; ours do not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.builder import GraphBuilder, WeightStore
from export.quantize import Float32
from export.weights import Floats, FoldedLayer, FoldedModel
from model.onnx_model import HEAD, steps_name

LENGTHS = (1, 32)
PREPARED = {"onnx.infer": "onnxruntime.quant"}
"""Tells the tool that there is nothing to prepare in these graphs, of which it would warn."""
IOFC = [0, 3, 1, 2]
"""Where the LSTM operator's gates i, o, f, c are among ours, i, f, g, o."""


def write_lstm_graphs(model: FoldedModel, folder: Path) -> list[Path]:
    """Write float graphs and quantize them; the files of a precision as `OnnxModel` reads them."""
    folder.mkdir(parents=True)
    names = []
    for name, build in {HEAD: _head, **{steps_name(length): _steps for length in LENGTHS}}.items():
        store = WeightStore(f"{name}.weights")
        onnx.save(build(model, name, store), folder / f"float-{name}")
        store.write(folder)
        quantize_dynamic(
            folder / f"float-{name}",
            folder / name,
            op_types_to_quantize=["LSTM", "MatMul"],
            weight_type=QuantType.QInt8,
            # As ours: without VNNI, sums of two products would saturate.
            reduce_range=True,
            per_channel=True,
            extra_options={"MatMulConstBOnly": True},
        )
        names.append(folder / name)
    return names


def _head(model: FoldedModel, name: str, store: WeightStore) -> onnx.ModelProto:
    """As ours, but for a product of its own operator, which the tool knows."""
    graph = GraphBuilder(name, store)
    hidden = graph.input("hidden", TensorProto.FLOAT, ["rows", model.config.embedding_size])
    table = graph.constant("decoder", np.ascontiguousarray(model.table.T))
    logits = graph.op("Add", graph.op("MatMul", hidden, table), graph.constant("bias", model.decoder_bias))
    likely = graph.op("LogSoftmax", logits, axis=-1)
    graph.output(likely, "log_probabilities", TensorProto.FLOAT, ["rows", model.config.vocabulary_size])
    return graph.build(**PREPARED)


def _steps(model: FoldedModel, name: str, store: WeightStore) -> onnx.ModelProto:
    length = next(length for length in LENGTHS if steps_name(length) == name)
    config = model.config
    graph = GraphBuilder(name, store)
    ids = graph.input("ids", TensorProto.INT32, ["batch", length])
    lengths = graph.input("lengths", TensorProto.INT32, ["batch"]) if length > 1 else ""
    state = graph.input("state", TensorProto.FLOAT, ["batch", config.state_size])
    sizes = [m for size in config.layer_sizes for m in (size.outputs, size.outputs)]
    packed = graph.ops("Split", state, graph.integers(*sizes), outputs=len(sizes), axis=1)
    x = Float32(model.table).embed(graph, graph.op("Transpose", ids, perm=[1, 0]))
    after = []
    for index, layer in enumerate(model.layers):
        x, h, c = _layer(graph, f"layers.{index}", layer, x, lengths, packed[2 * index : 2 * index + 2])
        after += [h, c]
    hidden = graph.op("Transpose", x, perm=[1, 0, 2])
    graph.output(hidden, "hidden", TensorProto.FLOAT, ["batch", length, config.embedding_size])
    graph.output(graph.concat(after, axis=1), "state_after", TensorProto.FLOAT, ["batch", config.state_size])
    return graph.build(**PREPARED)


def _layer(
    graph: GraphBuilder, name: str, layer: FoldedLayer, x: str, lengths: str, state: list[str]
) -> tuple[str, str, str]:
    """`x [T, B, N]` to outputs `[T, B, M]`, h and c `[B, M]`: one operator a group."""
    (weight,) = (level[0] for level in layer.input.levels)
    outputs, groups = layer.size.outputs, layer.context.groups
    m = outputs // groups
    if layer.residual:
        weight = weight + np.eye(outputs, dtype=np.float32)[:, None]
    before = [graph.split(part, axis=1, parts=groups) for part in state]
    ys, hs, cs = [], [], []
    for j in range(groups):
        part = slice(j * m, (j + 1) * m)
        bias = np.concatenate([_gates(layer.bias[None, :, part])[0, :, 0], np.zeros(4 * m, np.float32)])
        y, h, c = graph.ops(
            "LSTM",
            x,
            graph.constant(f"{name}.{j}.w", _gates(weight[:, :, part]).transpose(2, 1, 0)),
            graph.constant(f"{name}.{j}.r", _gates(layer.context.levels[0][j]).transpose(2, 1, 0)),
            graph.constant(f"{name}.{j}.b", bias[None]),
            lengths,
            *(graph.op("Unsqueeze", part_before[j], graph.integers(0)) for part_before in before),
            outputs=3,
            hidden_size=m,
        )
        ys.append(graph.op("Squeeze", y, graph.integers(1)))
        hs.append(graph.op("Squeeze", h, graph.integers(0)))
        cs.append(graph.op("Squeeze", c, graph.integers(0)))
    return graph.concat(ys, axis=2), graph.concat(hs, axis=1), graph.concat(cs, axis=1)


def _gates(weight: Floats) -> Floats:
    """`[n, 4, m]` as `[n, 4 * m, 1]`, the gates in the operator's order."""
    return weight[:, IOFC].reshape(len(weight), -1, 1)
