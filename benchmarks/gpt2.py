"""A GPT-2 in ONNX Runtime: what a step of a transformer costs on the runtime and settings that run the PRU.

Boundary: float weights in, a graph with int8 weights and the decoder that steps through it out. It reads one token at
a time, for one text. What is compared with what is `benchmarks.transformer`.

The form is the fastest of those tried, at 124 M parameters with 128 positions cached, on two threads of a processor
with AVX512-VNNI (the same run, quiet machine, milliseconds a step with its top 5):

    weights                                                  cache
    MatMulNBits, accuracy level 4, blocks of 128      5.5    GroupQueryAttention, written in place       5.5
      blocks of 256 / 64 / 32             5.5 / 5.7 / 6.3    two products, one with the cache            6.2
    DynamicQuantizeLinear, MatMulIntegerToFloat       6.3    MultiHeadAttention, cache copied            6.3
      the two as DynamicQuantizeMatMul                6.3    concatenated, MatMul and Softmax            6.7
    QuantizeLinear, MatMulIntegerToFloat              6.6

Top k in NumPy in place of the graph's own takes 0.3 ms more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto

from export.builder import MICROSOFT, GraphBuilder, WeightStore
from model.onnx_model import load_session

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
Weights = Callable[[str, tuple[int, ...]], Floats]
"""Gives the weight of a name and shape. Matrices are [inputs, outputs], as in GPT-2's own checkpoint."""

BLOCK = 128
"""Weights that share a scale. Every width must be a multiple of it."""
ZERO = 128
"""Code of 0, which is what the operator takes where none is given."""
EPSILON = 1e-5
"""Added to the variance in a layer's normalisation."""
TOP = 5


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2; those of the small one by default."""

    vocabulary_size: int = 50_257
    width: int = 768
    heads: int = 12
    layers: int = 12
    positions: int = 1024


def quantize_blocks(weight: Floats) -> tuple[Codes, Floats]:
    """Codes `[c, blocks, BLOCK]` of `weight [n, c]` and their scales `[c, blocks]`."""
    blocks = weight.T.reshape(weight.shape[1], -1, BLOCK)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(ZERO - 1)
    return (np.rint(blocks / scale) + ZERO).astype(np.uint8), scale[..., 0]


def write_graph(shape: Shape, weights: Weights, folder: Path) -> Path:
    """Write the graph of one step and its weights into a new `folder`; the graph's path."""
    folder.mkdir(parents=True)
    store = WeightStore("weights.bin")
    model = _Step(shape, weights, store).build()
    store.write(folder)
    path = folder / "step.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


class _Step:
    """The graph of one step under construction."""

    def __init__(self, shape: Shape, weights: Weights, store: WeightStore) -> None:
        self._shape = shape
        self._weights = weights
        self._graph = GraphBuilder("gpt2-step", store)

    def build(self) -> onnx.ModelProto:
        """ids [1, 1] and past [1] (positions cached), int32, and the caches -> ids and log-probabilities [1, TOP]."""
        graph, shape = self._graph, self._shape
        ids = graph.input("ids", TensorProto.INT32, [1, 1])
        past = graph.input("past", TensorProto.INT32, [1])
        after = graph.op("Add", past, graph.constant("one", np.ones(1, np.int32)))

        # The table is both embedding and decoder.
        codes, scale = quantize_blocks(self._weights("wte", (shape.vocabulary_size, shape.width)).T)
        table = graph.constant("wte", codes), graph.constant("wte.scale", scale)
        x = graph.op("Add", self._embed(ids, *table), self._embed_position(past))
        added = ""
        for index in range(shape.layers):
            name = f"h.{index}"
            y, x = self._norm(f"{name}.ln_1", x, added)
            y = self._attend(index, self._product(f"{name}.attn.c_attn", y, shape.width, 3 * shape.width), past, after)
            y, x = self._norm(f"{name}.ln_2", x, self._product(f"{name}.attn.c_proj", y, shape.width, shape.width))
            y = self._product(f"{name}.mlp.c_fc", y, shape.width, 4 * shape.width)
            y = graph.op("FastGelu", y, domain=MICROSOFT)
            added = self._product(f"{name}.mlp.c_proj", y, 4 * shape.width, shape.width)
        y, _ = self._norm("ln_f", x, added)
        logits = self._integer_product(graph.reshape(y, 1, shape.width), *table, "", shape.width, shape.vocabulary_size)
        likely = graph.op("LogSoftmax", logits, axis=-1)
        values, best = graph.ops("TopK", likely, graph.integers(TOP), outputs=2, axis=-1)
        graph.output(best, "best", TensorProto.INT64, [1, TOP])
        graph.output(values, "values", TensorProto.FLOAT, [1, TOP])
        return graph.build()

    def _embed(self, ids: str, codes: str, scale: str) -> str:
        """The id's row of the table `[1, 1, E]`."""
        graph = self._graph
        row = graph.op("Cast", graph.op("Gather", codes, ids), to=TensorProto.FLOAT)
        row = graph.op("Sub", row, graph.scalar(np.float32(ZERO)))
        row = graph.op("Mul", row, graph.op("Unsqueeze", graph.op("Gather", scale, ids), graph.integers(3)))
        return graph.reshape(row, 1, 1, self._shape.width)

    def _embed_position(self, past: str) -> str:
        table = self._weights("wpe", (self._shape.positions, self._shape.width))
        return self._graph.op("Gather", self._graph.constant("wpe", table), self._graph.reshape(past, 1, 1))

    def _norm(self, name: str, x: str, added: str) -> tuple[str, str]:
        """`x` plus what the part before gave (empty: nothing), normalised, and that sum."""
        graph, size = self._graph, (self._shape.width,)
        gain, bias = (graph.constant(f"{name}.{part}", self._weights(f"{name}.{part}", size)) for part in ("g", "b"))
        if not added:
            return graph.op("LayerNormalization", x, gain, bias, epsilon=EPSILON), x
        normalised, _, _, total = graph.ops(
            "SkipLayerNormalization", x, added, gain, bias, outputs=4, domain=MICROSOFT, epsilon=EPSILON
        )
        return normalised, total

    def _attend(self, index: int, qkv: str, past: str, after: str) -> str:
        """Attention of the new position to itself and the cached ones; its key and value join the cache."""
        graph, shape = self._graph, self._shape
        cache_shape: list[int | str] = [1, shape.heads, "positions", shape.width // shape.heads]
        caches = [graph.input(f"{kind}.{index}", TensorProto.FLOAT, cache_shape) for kind in ("key", "value")]
        attended, *written = graph.ops(
            "GroupQueryAttention",
            *(qkv, "", "", *caches, past, after),
            outputs=3,
            domain=MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.heads,
        )
        for cache, value in zip(caches, written, strict=True):
            graph.output(value, f"{cache}.after", TensorProto.FLOAT, cache_shape)
        return attended

    def _product(self, name: str, x: str, inputs: int, outputs: int) -> str:
        graph = self._graph
        codes, scale = quantize_blocks(self._weights(f"{name}.w", (inputs, outputs)))
        bias = graph.constant(f"{name}.b", self._weights(f"{name}.b", (outputs,)))
        constants = graph.constant(f"{name}.w", codes), graph.constant(f"{name}.w.scale", scale)
        return self._integer_product(x, *constants, bias, inputs, outputs)

    def _integer_product(self, x: str, codes: str, scale: str, bias: str, inputs: int, outputs: int) -> str:
        """A product of int8: at accuracy level 4 the activations are rounded too, a block at a time."""
        return self._graph.op(
            "MatMulNBits",
            *(x, codes, scale, "", "", bias),
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )


class Decoder:
    """A loaded graph and the cache of one text, which each step extends in place."""

    def __init__(self, path: Path, shape: Shape, capacity: int, threads: int) -> None:
        self._session = load_session(path, threads)
        self._binding = self._session.io_binding()
        self._token = np.zeros((1, 1), np.int32)
        self._past = np.zeros(1, np.int32)
        self._caches = []
        cache_shape = 1, shape.heads, capacity, shape.width // shape.heads
        for name in (f"{kind}.{index}" for index in range(shape.layers) for kind in ("key", "value")):
            cache = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(cache_shape, np.float32))
            self._caches.append(cache)
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_ortvalue_output(f"{name}.after", cache)
        for name in ("best", "values"):
            self._binding.bind_output(name)

    def step(self, token: int, past: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Read `token` after the `past` positions cached: the `TOP` likeliest next ones and their log-probabilities."""
        self._token[:], self._past[:] = token, past
        self._binding.bind_cpu_input("ids", self._token)
        self._binding.bind_cpu_input("past", self._past)
        self._session.run_with_iobinding(self._binding)
        *_, best, values = self._binding.get_outputs()  # as they were bound: the caches first
        return best.numpy()[0], values.numpy()[0]
