"""Codes and scales of the int8 arithmetic, and what its files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from export.builder import GraphBuilder, WeightStore
from export.quantize import LARGEST_WEIGHT, Precision, StaticInt8, quantize_columns
from tests.export.samples import build, config_of, random_weights


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_a_code_times_its_scale_is_within_half_a_step_of_the_weight(seed: int, size: float) -> None:
    weight = (np.random.default_rng(seed).normal(size=(3, 17, 5)) * size).astype(np.float32)
    codes, scale = quantize_columns(weight)
    assert (np.abs(codes).max(axis=1) == LARGEST_WEIGHT).all()
    assert (np.abs(codes * scale - weight) <= 0.5001 * scale).all()


def test_a_column_of_zeros_stays_zero() -> None:
    weight = np.array([[0, 1], [0, -2]], np.float32)
    codes, scale = quantize_columns(weight)
    np.testing.assert_array_equal(codes, [[0, 32], [0, -64]])
    assert np.isfinite(scale).all()


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_multiply_exactly(rows: int, sign: int, tmp_path: Path) -> None:
    """Without VNNI, x86 adds two products in 16 bits: 255 * 127 * 2 would saturate, 255 * 64 * 2 does not."""
    inputs, outputs = 64, 48
    arithmetic = StaticInt8(np.ones((2, inputs), np.float32))
    weight = np.full((1, inputs, outputs), sign, np.float32)
    graph = GraphBuilder("saturation", WeightStore("weights.bin"))
    x = graph.input("x", TensorProto.FLOAT, [1, "rows", inputs])
    context = arithmetic.step_weight(graph, "context", weight, 1.0)
    graph.output(arithmetic.step_product(graph, x, context), "context_product", TensorProto.FLOAT, [1, "rows", outputs])
    flat = graph.reshape(x, -1, inputs)
    product = arithmetic.product(graph, flat, 1.0, "input", weight[0], np.zeros(outputs, np.float32))
    graph.output(product, "product", TensorProto.FLOAT, ["rows", outputs])
    graph._store.write(tmp_path)
    (tmp_path / "graph.onnx").write_bytes(graph.build().SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    by_context, by_product = session.run(None, {"x": np.ones((1, rows, inputs), np.float32)})
    np.testing.assert_allclose(by_context[0] + context.offset, sign * inputs, rtol=1e-6)
    np.testing.assert_allclose(by_product, sign * inputs, rtol=1e-6)


def test_a_fine_product_reads_values_far_below_its_bound(tmp_path: Path) -> None:
    inputs, outputs, bound = 24, 40, 300.0
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, inputs, outputs)).astype(np.float32)
    x = rng.uniform(-3, 3, (1, 16, inputs)).astype(np.float32)
    x[0, 0, :2] = bound, -bound
    arithmetic = StaticInt8(np.ones((2, inputs), np.float32))
    graph = GraphBuilder("digits", WeightStore("weights.bin"))
    value = graph.input("x", TensorProto.FLOAT, [1, "rows", inputs])
    offsets = {}
    for name, fine in (("coarse", False), ("fine", True)):
        constants = arithmetic.step_weight(graph, name, weight, bound, fine=fine)
        offsets[name] = constants.offset
        product = arithmetic.step_product(graph, value, constants)
        graph.output(product, f"{name}_product", TensorProto.FLOAT, [1, "rows", outputs])
    graph._store.write(tmp_path)
    (tmp_path / "graph.onnx").write_bytes(graph.build().SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    coarse, fine = session.run(None, {"x": x})
    codes, scale = quantize_columns(weight)
    expected = x.astype(np.float64) @ (codes * scale)
    assert np.abs(coarse + offsets["coarse"] - expected)[:, 1:].max() > 3
    assert np.abs(fine + offsets["fine"] - expected).max() < 0.05


def test_no_stored_weight_can_saturate_and_the_table_is_stored_once(tmp_path: Path) -> None:
    config = config_of(vocabulary_size=500, embedding_size=64, hidden_size=128)
    build(config, random_weights(config), Precision.INT8, tmp_path)
    integers = {}
    for path in tmp_path.glob("*.onnx"):
        for tensor in onnx.load(path).graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.int8:
                integers[tensor.name] = array
    assert {name: array.shape for name, array in integers.items()} == {
        "table": (500, 64),
        "layers.0.input.0": (64, 512),
        "layers.0.context.0": (4, 32, 128),
        "layers.1.input.0": (128, 256),
        "layers.1.context.0": (4, 16, 64),
    }
    assert max(np.abs(array.astype(int)).max() for array in integers.values()) == LARGEST_WEIGHT
    codes = sum(array.size for array in integers.values())
    padding = 4096 * len(list(onnx.load(tmp_path / "steps-1.onnx", load_external_data=False).graph.initializer))
    assert codes <= (tmp_path / "weights.bin").stat().st_size <= codes + padding


def test_graphs_hold_no_weights_of_their_own(tmp_path: Path) -> None:
    config = config_of(vocabulary_size=500, embedding_size=64, hidden_size=128)
    for precision in Precision:
        build(config, random_weights(config), precision, tmp_path / precision)
        assert max(path.stat().st_size for path in (tmp_path / precision).glob("*.onnx")) < 20_000
