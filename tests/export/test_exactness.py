"""Int8 results are the same to the bit whatever shares the batch, however time is cut, on any number of threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.quantize import Precision
from model import onnx_model
from model.config import ModelConfig
from model.onnx_model import OnnxModel
from tests.export.samples import build, config_of, random_ids, random_states, random_weights

ROWS, WIDTH = 33, 37

ODD_SIZES: list[dict[str, Any]] = [
    {"vocabulary_size": 1013, "embedding_size": 148, "hidden_size": 148, "layers": 2},  # 37 in each of 4 groups
    {"vocabulary_size": 333, "embedding_size": 28, "hidden_size": 1400, "layers": 2},  # 350 in each
    {"vocabulary_size": 257, "embedding_size": 37, "hidden_size": 37, "layers": 1, "context_transform": "linear"},
    {
        "embedding_size": 20,
        "hidden_size": 45,
        "levels": 3,
        "subsampling": "convolution",
        "context_transform": "pyramidal",
    },
    {"embedding_size": 20, "hidden_size": 44, "levels": 2, "subsampling": "max"},
    {
        "embedding_size": 36,
        "hidden_size": 60,
        "layers": 3,
        "mogrifier_rounds": 5,
        "vocabulary_size": 1013,
        "softmaxes": 3,
    },
    {"embedding_size": 37, "hidden_size": 53, "groups": 1, "mogrifier_rounds": 4, "mogrifier_rank": 7, "softmaxes": 10},
]

Case = tuple[ModelConfig, OnnxModel, OnnxModel]


@pytest.fixture(scope="module", params=ODD_SIZES, ids=lambda fields: f"M={fields['hidden_size']}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A configuration; its model on one thread, and on two threads with other unrolled lengths."""
    config = config_of(**request.param)
    weights = random_weights(config)
    folder = tmp_path_factory.mktemp("graphs")
    one = build(config, weights, Precision.INT8, folder / "one", lengths=(1, 16))
    two = build(config, weights, Precision.INT8, folder / "two", lengths=(1, 5), threads=2)
    return config, one, two


def test_a_row_alone_is_the_row_among_32_others(case: Case) -> None:
    config, one, _ = case
    ids, states = random_ids(config, ROWS, WIDTH), random_states(config, ROWS)
    lengths = np.random.default_rng(5).integers(0, WIDTH + 1, ROWS).astype(np.int32)
    lengths[:3] = WIDTH, 0, 1
    hidden, after = one.advance(ids, lengths, states)
    for row in (0, 1, 2, 11, 32):
        length = lengths[row]
        alone, state = one.advance(ids[row : row + 1, :length], lengths[row : row + 1], states[row : row + 1])
        np.testing.assert_array_equal(alone[0], hidden[row, :length])
        np.testing.assert_array_equal(state[0], after[row])


def test_two_threads_and_other_graphs_change_nothing(case: Case) -> None:
    config, one, two = case
    ids, states = random_ids(config, ROWS, WIDTH), random_states(config, ROWS)
    lengths = np.full(ROWS, WIDTH, np.int32)
    for found, expected in zip(two.advance(ids, lengths, states), one.advance(ids, lengths, states), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cuts", [(1,) * WIDTH, (3, 16, 18), (36, 1), (20, 17)])
def test_time_can_be_cut_anywhere(case: Case, cuts: tuple[int, ...]) -> None:
    config, one, _ = case
    ids, state = random_ids(config, 2, WIDTH), random_states(config, 2)
    hidden, after = one.advance(ids, np.full(2, WIDTH, np.int32), state)
    parts = []
    for part in np.split(ids, np.cumsum(cuts)[:-1], axis=1):
        found, state = one.advance(part, np.full(2, part.shape[1], np.int32), state)
        parts.append(found)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), hidden)
    np.testing.assert_array_equal(state, after)


def test_scores_do_not_depend_on_what_is_scored_with_them(case: Case) -> None:
    config, one, two = case
    hidden = np.random.default_rng(7).uniform(-1, 1, (ROWS, config.embedding_size)).astype(np.float32)
    targets = random_ids(config, ROWS)
    values, ranks = one.score(hidden, targets)
    for model in (one, two):
        alone = [model.score(hidden[i : i + 1], targets[i : i + 1]) for i in range(ROWS)]
        np.testing.assert_array_equal(np.concatenate([value for value, _ in alone]), values)
        np.testing.assert_array_equal(np.concatenate([rank for _, rank in alone]), ranks)
        np.testing.assert_array_equal(model.log_probabilities(hidden)[np.arange(ROWS), targets], values)


@pytest.mark.parametrize(("rows", "in_lanes"), [(23, True), (7, False)])
def test_rows_shared_out_among_threads_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, in_lanes: bool
) -> None:
    config = config_of()
    weights = random_weights(config)
    alone, shared = (build(config, weights, Precision.INT8, tmp_path / str(n), threads=n) for n in (1, 3))
    ids, state = random_ids(config, rows, 9), random_states(config, rows)
    lengths = np.arange(rows, dtype=np.int32) % 10
    expected = alone.advance(ids, lengths, state)
    threads: set[str] = set()
    run = onnx_model._run

    def watched(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name)
        return run(*arguments)

    monkeypatch.setattr(onnx_model, "_run", watched)
    found = shared.advance(ids, lengths, state)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(found[0][row, :length], expected[0][row, :length])
    np.testing.assert_array_equal(found[1], expected[1])
    assert any(name.startswith("lane") for name in threads) is in_lanes
