"""The two arithmetics of the graphs: float32, and static int8 whose sums are exact.

Boundary: numbers and the operators that multiply them. Int8 needs no calibration: |h| is below 1, a gate below 2 and
the table's largest entry is known, so every activation has a fixed scale; a weight has one scale a column. Integer
sums do not depend on their order, and everything else is element-wise, so a result never depends on what shares its
batch.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from export.arithmetic import Arithmetic, StepWeight
from export.builder import MICROSOFT, GraphBuilder
from export.weights import Floats

ZERO = 128
"""Zero point of the u8 activations: the code of 0."""
LARGEST = 127
"""Largest activation code above the zero point."""
LARGEST_WEIGHT = 64
"""Largest weight. Without VNNI, x86 adds two u8 x s8 products in 16 bits: with 64 they cannot saturate.

The alternative, ONNX Runtime's `session.x64quantprecision`, makes weights u8 where it finds larger ones: on processors
with VNNI too, which doubles the time of a product, and it refuses to load a weight that several operators share.
"""

Int8 = npt.NDArray[np.int8]


class Precision(StrEnum):
    """What a bundle can hold."""

    FLOAT32 = "float32"
    INT8 = "int8"


def quantize_columns(weight: Floats) -> tuple[Int8, Floats]:
    """Round `weight [..., n, c]` to integers of at most `LARGEST_WEIGHT`, with a scale a column `[..., 1, c]`."""
    peak = np.abs(weight).max(axis=-2, keepdims=True)
    scale = np.where(peak > 0, peak / np.float32(LARGEST_WEIGHT), np.float32(1)).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


class Float32:
    """Products in float32."""

    def __init__(self, table: Floats) -> None:
        self._table = table
        self.table_bound = float(np.abs(table).max())

    def embed(self, graph: GraphBuilder, ids: str) -> str:
        """Rows of the table."""
        return graph.op("Gather", graph.constant("table", self._table), ids, axis=0)

    def product(self, graph: GraphBuilder, x: str, bound: float, name: str, weight: Floats, bias: Floats) -> str:
        """One float product; the bound is not needed."""
        return graph.op("Gemm", x, graph.constant(name, weight), graph.constant(f"{name}.bias", bias))

    def step_weight(
        self, graph: GraphBuilder, name: str, weight: Floats, bound: float, *, fine: bool = False
    ) -> StepWeight:
        """The matrix; its product leaves nothing out."""
        offset = np.zeros((weight.shape[0], weight.shape[2]), np.float32)
        return StepWeight((graph.constant(name, weight),), offset, bound)

    def step_product(self, graph: GraphBuilder, x: str, weight: StepWeight) -> str:
        """One float product a group."""
        return graph.op("MatMul", x, *weight.operands)

    def logits(self, graph: GraphBuilder, hidden: str, bias: Floats) -> str:
        """The table read by columns."""
        return graph.op("Gemm", hidden, graph.constant("table", self._table), graph.constant("bias", bias), transB=1)


class StaticInt8:
    """Products of u8 activations and s8 weights, summed in int32."""

    def __init__(self, table: Floats) -> None:
        # A scale a word: a row as embedding, a column as decoder.
        columns, scale = quantize_columns(table.T)
        self._table = np.ascontiguousarray(columns.T)
        self._table_scale = scale[0]
        self.table_bound = float((np.abs(self._table).max(axis=1) * self._table_scale).max()) or 1.0

    def embed(self, graph: GraphBuilder, ids: str) -> str:
        """Rows of the table times their scales."""
        rows = graph.op("Cast", graph.op("Gather", graph.constant("table", self._table), ids), to=TensorProto.FLOAT)
        scale = graph.op("Gather", graph.constant("table.scale", self._table_scale), ids)
        return graph.op("Mul", rows, graph.op("Unsqueeze", scale, graph.integers(1)))

    def product(self, graph: GraphBuilder, x: str, bound: float, name: str, weight: Floats, bias: Floats) -> str:
        """One integer product with a scale a column; the runtime adds the bias as it scales."""
        codes, scale = quantize_columns(weight)
        weights = graph.constant(name, codes), graph.constant(f"{name}.scale", scale[0])
        return self._scaled(graph, x, bound, *weights, graph.constant(f"{name}.bias", bias))

    def step_weight(
        self, graph: GraphBuilder, name: str, weight: Floats, bound: float, *, fine: bool = False
    ) -> StepWeight:
        """The matrix and a scale a column; a fine one has another for what rounding x leaves out."""
        codes, scale = quantize_columns(weight)
        matrix = graph.constant(name, codes)
        # Half a step, at most.
        rest = self._step_weight(graph, matrix, "rest", codes, scale, bound / (2 * LARGEST), None) if fine else None
        return self._step_weight(graph, matrix, "scale", codes, scale, bound, rest)

    def step_product(self, graph: GraphBuilder, x: str, weight: StepWeight) -> str:
        """One integer product a group, of the codes as they are: ONNX Runtime is faster without a zero point."""
        matrix, step = weight.operands
        codes = self._codes(graph, x, weight.bound)
        sums = graph.op("MatMulInteger", codes, matrix)
        product = graph.op("Mul", graph.op("Cast", sums, to=TensorProto.FLOAT), step)
        if weight.rest is None:
            return product
        centred = graph.op("Sub", graph.op("Cast", codes, to=TensorProto.FLOAT), graph.scalar(np.float32(ZERO)))
        rounded = graph.op("Mul", centred, graph.scalar(np.float32(weight.bound / LARGEST)))
        return graph.op("Add", product, self.step_product(graph, graph.op("Sub", x, rounded), weight.rest))

    def logits(self, graph: GraphBuilder, hidden: str, bias: Floats) -> str:
        """The same table as the embedding's; its transpose is folded when a graph is loaded."""
        table = graph.op("Transpose", graph.constant("table", self._table), perm=[1, 0])
        scale = graph.constant("table.scale", self._table_scale)
        return self._scaled(graph, hidden, 1.0, table, scale, graph.constant("bias", bias))

    @staticmethod
    def _step_weight(
        graph: GraphBuilder, matrix: str, kind: str, codes: Int8, scale: Floats, bound: float, rest: StepWeight | None
    ) -> StepWeight:
        step = (scale / np.float32(LARGEST / bound)).astype(np.float32)
        # The zero point's share of the sums, with its sign turned.
        offset = -ZERO * codes.sum(axis=1, dtype=np.int64) * step[:, 0].astype(np.float64)
        total = offset if rest is None else offset + rest.offset
        operands = matrix, graph.constant(f"{matrix}.{kind}", step)
        return StepWeight(operands, total.astype(np.float32), bound, rest)

    def _scaled(self, graph: GraphBuilder, x: str, bound: float, codes: str, scale: str, bias: str) -> str:
        step, zero = graph.scalar(np.float32(bound / LARGEST)), graph.scalar(np.uint8(ZERO))
        activations = self._codes(graph, x, bound)
        return graph.op("MatMulIntegerToFloat", activations, codes, step, scale, zero, "", bias, domain=MICROSOFT)

    @staticmethod
    def _codes(graph: GraphBuilder, x: str, bound: float) -> str:
        step, zero = graph.scalar(np.float32(bound / LARGEST)), graph.scalar(np.uint8(ZERO))
        return graph.op("QuantizeLinear", x, step, zero)


def arithmetic_of(precision: Precision, table: Floats) -> Arithmetic:
    """The arithmetic of a precision, for a model whose tied table is `table [V, E]`."""
    return Float32(table) if precision is Precision.FLOAT32 else StaticInt8(table)
