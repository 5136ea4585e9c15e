"""Graphs against an independent float64 model, for every kind of model a configuration permits."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

from export.quantize import Precision
from model import onnx_model
from model.config import ModelConfig
from model.errors import ConfigurationError, EngineError
from model.onnx_model import HEAD, OnnxModel
from tests.export.configurations import CONFIGS, FIELDS
from tests.export.reference import ReferenceModel
from tests.export.samples import build, config_of, random_ids, random_states, random_weights

TOLERANCE = {Precision.FLOAT32: 1e-5, Precision.INT8: 0.1}


def largest_difference(config: ModelConfig, precision: Precision, folder: Path) -> float:
    """Of hidden vectors, states and log-probabilities of ragged rows from random states, from the reference's."""
    weights = random_weights(config)
    model, reference = build(config, weights, precision, folder), ReferenceModel(config, weights)
    lengths = np.array([7, 0, 4, 1], np.int32)
    ids, states = random_ids(config, 4, 7), random_states(config, 4)
    hidden, after = model.advance(ids, lengths, states)
    assert hidden.shape == (4, 7, config.embedding_size)
    differences = [0.0]
    for row, length in enumerate(lengths):
        expected, expected_state = reference.advance(ids[row, :length], states[row])
        found = hidden[row, :length]
        differences += [np.abs(found - expected).max(initial=0), np.abs(after[row] - expected_state).max()]
        likely = reference.log_probabilities(expected)
        differences.append(np.abs(model.log_probabilities(found) - likely).max(initial=0))
    return float(np.max(differences))


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("fields", CONFIGS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_graphs_compute_the_model(fields: dict[str, Any], precision: Precision, tmp_path: Path) -> None:
    assert largest_difference(config_of(**fields), precision, tmp_path) <= TOLERANCE[precision]


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(fields=FIELDS)
def test_graphs_compute_whatever_a_configuration_permits(fields: dict[str, Any]) -> None:
    try:
        config = ModelConfig.from_dict(fields)
    except ConfigurationError:
        assume(False)
    with TemporaryDirectory() as folder:
        assert largest_difference(config, Precision.FLOAT32, Path(folder)) <= 1e-5


def test_a_mixture_is_read_so_many_rows_at_a_time_that_all_its_softmaxes_keep_to_the_memory_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(softmaxes=5)
    monkeypatch.setattr(onnx_model, "HEAD_BYTES", 4 * config.vocabulary_size * 5 * 3)
    model = build(config, random_weights(config), Precision.FLOAT32, tmp_path)
    sizes = []
    run = onnx_model._run

    def counted(session: Any, feeds: dict[str, Any]) -> Any:
        sizes.append(len(feeds["hidden"]))
        return run(session, feeds)

    monkeypatch.setattr(onnx_model, "_run", counted)
    hidden = np.random.default_rng(0).uniform(-1, 1, (7, config.embedding_size)).astype(np.float32)
    likely = model.log_probabilities(hidden)
    assert sizes == [3, 3, 1]
    np.testing.assert_allclose(np.exp(likely.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("said", ["0", "-1", "many", "", "12345"])
def test_a_head_that_says_no_number_of_softmaxes_is_refused(said: str, tmp_path: Path) -> None:
    config = config_of(softmaxes=2)
    build(config, random_weights(config), Precision.INT8, tmp_path)
    head = onnx.load(tmp_path / HEAD, load_external_data=False)
    head.metadata_props[0].value = said
    (tmp_path / HEAD).write_bytes(head.SerializeToString())
    with pytest.raises(EngineError, match=f"the head mixes '{said}' softmaxes; export the bundle again"):
        OnnxModel(tmp_path.glob("*.onnx"), threads=1)


@pytest.mark.parametrize("precision", Precision)
def test_words_that_no_softmax_thinks_likely_keep_finite_log_probabilities(
    precision: Precision, tmp_path: Path
) -> None:
    config = config_of(softmaxes=3)
    weights = random_weights(config)
    weights["decoder.bias"][7] = -300
    model = build(config, weights, precision, tmp_path)
    hidden = np.random.default_rng(0).uniform(-1, 1, (4, config.embedding_size)).astype(np.float32)
    expected = ReferenceModel(config, weights).log_probabilities(hidden.astype(np.float64))
    assert expected[:, 7].max() < -250
    np.testing.assert_allclose(model.log_probabilities(hidden)[:, 7], expected[:, 7], atol=0.1)
