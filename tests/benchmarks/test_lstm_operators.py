"""The LSTM operators that static int8 is compared with compute the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.lstm_operators import LENGTHS, write_lstm_graphs
from export.quantize import Precision
from export.weights import fold_model
from model.onnx_model import OnnxModel
from tests.export.samples import build, config_of, random_ids, random_states, random_weights


@pytest.mark.parametrize("layers", [2, 3])  # The middle one of three has a residual.
def test_dynamically_quantized_lstm_operators_are_within_int8_of_the_float_graphs(tmp_path: Path, layers: int) -> None:
    config = config_of(layers=layers)
    weights = random_weights(config)
    peer = OnnxModel(write_lstm_graphs(fold_model(config, weights), tmp_path / "peer"), threads=1)
    ours = build(config, weights, Precision.FLOAT32, tmp_path / "ours", lengths=LENGTHS)
    assert peer.step_lengths == sorted(LENGTHS, reverse=True)
    ids = random_ids(config, 3, max(LENGTHS))
    state = random_states(config, 3)
    for steps in LENGTHS:
        read = np.full(3, steps, np.int32)
        found, found_state = peer.advance(ids[:, :steps], read, state)
        expected, expected_state = ours.advance(ids[:, :steps], read, state)
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.03 * expected.std()
        assert np.sqrt(np.mean((found_state - expected_state) ** 2)) < 0.03 * expected_state.std()
    likely = ours.log_probabilities(expected[0])
    assert np.abs(peer.log_probabilities(expected[0]) - likely).max() < 0.03 * likely.std()
