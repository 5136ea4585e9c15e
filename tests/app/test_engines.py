"""The ONNX engine behind its protocol: what it answers, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from app.engines import Engine, load_engine
from export.cli import main
from export.quantize import Precision
from model import onnx_model
from model.arguments import Floats
from model.bundle import Bundle, open_bundle
from model.errors import EngineError
from model.onnx_model import MAX_TOKENS, OnnxModel
from tests.export.reference import ReferenceModel
from tests.export.samples import build, config_of, random_ids, random_states, random_weights, write_checkpoint

CONFIG = config_of()
WEIGHTS = random_weights(CONFIG)
V, E, S = CONFIG.vocabulary_size, CONFIG.embedding_size, CONFIG.state_size


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("engines")
    arguments = ["--checkpoint", write_checkpoint(folder / "checkpoint", CONFIG, WEIGHTS), "--out", folder / "bundle"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export", *map(str, arguments), "--tokens", "50", "--threads", "1"])
        with pytest.raises(SystemExit):
            main()
    return open_bundle(folder / "bundle")


@pytest.fixture(scope="module", params=["int8", "float32"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    return load_engine(bundle, request.param, threads=1)


def some_hidden(rows: int) -> Floats:
    return np.random.default_rng(3).uniform(-1, 1, (rows, E)).astype(np.float32)


def test_the_engine_tells_what_it_is(engine: Engine) -> None:
    assert engine.name == "onnx"
    assert engine.precision in {"int8", "float32"}
    assert (engine.vocabulary_size, engine.state_size) == (V, S)


@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_int8_is_chosen_unless_told_otherwise(bundle: Bundle, asked: str) -> None:
    assert load_engine(bundle, asked).precision == "int8"


def test_float32_is_chosen_where_there_is_nothing_else(bundle: Bundle) -> None:
    engines = {"onnx": {"float32": bundle.manifest.engines["onnx"]["float32"]}}
    only = Bundle(bundle.folder, bundle.manifest.model_copy(update={"engines": engines}), bundle.sha256)
    assert load_engine(only).precision == "float32"


def test_graphs_of_another_model_are_refused(bundle: Bundle) -> None:
    other = bundle.manifest.model_copy(update={"model": config_of(hidden_size=20)})
    with pytest.raises(EngineError, match="artefact in int8 is of another model; export"):
        load_engine(Bundle(bundle.folder, other, bundle.sha256))


def test_a_bundle_that_lists_no_head_is_refused(bundle: Bundle) -> None:
    files = bundle.paths(bundle.manifest.engines["onnx"]["int8"])
    with pytest.raises(EngineError, match=r"lists no head\.onnx"):
        OnnxModel([path for path in files if path.name != "head.onnx"], threads=1)


def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("steps-1.onnx", "head.onnx"):
        (tmp_path / name).write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"steps-1\.onnx cannot be loaded by ONNX Runtime") as caught:
        OnnxModel(tmp_path.iterdir(), threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 17, 33, 70])
def test_any_length_gives_what_the_reference_gives(bundle: Bundle, length: int) -> None:
    ids, states = random_ids(CONFIG, 2, length), random_states(CONFIG, 2)
    hidden, after = load_engine(bundle, "float32").advance(ids, np.full(2, length, np.int32), states)
    for row in range(2):
        expected, expected_state = ReferenceModel(CONFIG, WEIGHTS).advance(ids[row], states[row])
        np.testing.assert_allclose(hidden[row], expected, atol=1e-5)
        np.testing.assert_allclose(after[row], expected_state, atol=1e-5)


def test_rows_of_length_zero_keep_their_state(engine: Engine) -> None:
    states = random_states(CONFIG, 3)
    before = states.copy()
    _, after = engine.advance(np.zeros((3, 2), np.int32), np.array([0, 2, 0], np.int32), states)
    np.testing.assert_array_equal(after[[0, 2]], states[[0, 2]])
    assert (after[1] != states[1]).any()
    np.testing.assert_array_equal(states, before)


def test_nothing_to_read_is_allowed(engine: Engine) -> None:
    states = random_states(CONFIG, 2)
    hidden, after = engine.advance(np.zeros((2, 0), np.int32), np.zeros(2, np.int32), states)
    assert hidden.shape == (2, 0, E)
    np.testing.assert_array_equal(after, states)
    hidden, after = engine.advance(np.zeros((0, 3), np.int32), np.zeros(0, np.int32), np.zeros((0, S), np.float32))
    assert (hidden.shape, after.shape) == ((0, 3, E), (0, S))


def test_padding_is_never_looked_at(engine: Engine) -> None:
    ids, lengths, states = random_ids(CONFIG, 2, 6), np.array([6, 3], np.int32), random_states(CONFIG, 2)
    padded = ids.copy()
    padded[1, 3:] = -7
    (hidden, after), (expected, expected_after) = (engine.advance(each, lengths, states) for each in (padded, ids))
    np.testing.assert_array_equal(after, expected_after)
    np.testing.assert_array_equal(hidden[0], expected[0])
    np.testing.assert_array_equal(hidden[1, :3], expected[1, :3])


def test_more_rows_than_one_run_takes_are_read_in_parts(bundle: Bundle) -> None:
    engine = load_engine(bundle, "int8")
    rows = 2 * MAX_TOKENS + 3
    ids, lengths, states = random_ids(CONFIG, rows, 2), np.full(rows, 2, np.int32), random_states(CONFIG, rows)
    hidden, after = engine.advance(ids, lengths, states)
    last, last_state = engine.advance(ids[-1:], lengths[-1:], states[-1:])
    np.testing.assert_array_equal(hidden[-1:], last)
    np.testing.assert_array_equal(after[-1:], last_state)


@pytest.mark.parametrize(
    ("ids", "lengths", "rows", "problem"),
    [
        ([[V]], [1], 1, "ids must be 0 to 49"),
        ([[-1]], [1], 1, "ids must be 0 to 49"),
        ([[1, 2]], [3], 1, "lengths must be 0 to 2"),
        ([[1, 2]], [-1], 1, "lengths must be 0 to 2"),
        ([[1, 2]], [1, 1], 1, "advance needs"),
        ([[1, 2]], [2], 2, "advance needs"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    engine: Engine, ids: list[list[int]], lengths: list[int], rows: int, problem: str
) -> None:
    with pytest.raises(EngineError, match=problem):
        engine.advance(np.array(ids, np.int32), np.array(lengths, np.int32), np.zeros((rows, S), np.float32))


def test_log_probabilities_are_those_of_the_reference(engine: Engine) -> None:
    hidden = some_hidden(9)
    found = engine.log_probabilities(hidden).astype(np.float64)
    tolerance = 0.1 if engine.precision == "int8" else 1e-5
    expected = ReferenceModel(CONFIG, WEIGHTS).log_probabilities(hidden.astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)


def test_the_three_calls_agree_to_the_bit(engine: Engine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "HEAD_BYTES", 4 * V * 5)  # Five rows at a time, so that 23 are cut.
    chunked = load_engine(bundle, engine.precision)
    hidden = some_hidden(23)
    for model in (engine, chunked):
        likely = model.log_probabilities(hidden)
        for word in range(V):
            values, ranks = model.score(hidden, np.full(23, word, np.int32))
            np.testing.assert_array_equal(values, likely[:, word])
            np.testing.assert_array_equal(ranks, 1 + (likely > likely[:, [word]]).sum(axis=1))
        best, values = model.top_k(hidden, V)
        np.testing.assert_array_equal(values, np.take_along_axis(likely, best, axis=1))
        np.testing.assert_array_equal(best, np.argsort(-likely, axis=1, kind="stable"))


def test_scores_are_computed_a_bounded_number_of_rows_at_a_time(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_model, "HEAD_BYTES", 4 * V * 7)
    engine = load_engine(bundle, "int8")
    seen = []
    run = onnx_model._run

    def watched(session: object, feeds: dict[str, Floats]) -> list[Floats]:
        seen.append(len(feeds["hidden"]))
        return run(session, feeds)

    monkeypatch.setattr(onnx_model, "_run", watched)
    engine.score(some_hidden(40), np.zeros(40, np.int32))
    assert seen == [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize("k", [1, 3, V, 10**9])
def test_top_k_is_the_head_of_the_sorted_vocabulary(engine: Engine, k: int) -> None:
    hidden = some_hidden(4)
    best, values = engine.top_k(hidden, k)
    likely = engine.log_probabilities(hidden)
    np.testing.assert_array_equal(best, np.argsort(-likely, axis=1, kind="stable")[:, :k])
    np.testing.assert_array_equal(values, -np.sort(-likely, axis=1)[:, :k])
    assert [array.dtype.name for array in (best, values)] == ["int32", "float32"]


def test_ties_go_to_the_lower_id_and_share_their_rank(tmp_path: Path) -> None:
    tied = WEIGHTS | {
        "embedding.weight": np.repeat(WEIGHTS["embedding.weight"][:10], 5, axis=0),
        "decoder.bias": np.repeat(WEIGHTS["decoder.bias"][:10], 5),
    }
    model = build(CONFIG, tied, Precision.INT8, tmp_path)
    best, _ = model.top_k(some_hidden(6), 12)
    np.testing.assert_array_equal(best[:, :10] % 5, np.tile(np.arange(5), (6, 2)))
    for place in range(10):
        _, ranks = model.score(some_hidden(6), best[:, place])
        np.testing.assert_array_equal(ranks, 1 + place // 5 * 5)


def test_a_head_refuses_what_does_not_fit(engine: Engine) -> None:
    with pytest.raises(EngineError, match="needs k of at least 1, not 0"):
        engine.top_k(some_hidden(1), 0)
    with pytest.raises(EngineError, match=r"hidden vectors must be \[N, 12\], not \[1, 11\]"):
        engine.log_probabilities(some_hidden(1)[:, :11])
    for targets in ([V], [-1], [0, 0]):
        with pytest.raises(EngineError, match="score needs a target below 50 for each of 1 vectors"):
            engine.score(some_hidden(1), np.array(targets, np.int32))


def test_no_vectors_give_no_answers(engine: Engine) -> None:
    assert engine.log_probabilities(some_hidden(0)).shape == (0, V)
    assert engine.top_k(some_hidden(0), 3)[0].shape == (0, 3)
    assert engine.score(some_hidden(0), np.zeros(0, np.int32))[1].shape == (0,)
