"""What holds of every engine: the model's values, whatever shares the batch, however time is cut, and in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.engines import Engine
from app.engines.base import Floats, Ids
from export.forms import ENGINES
from model.bundle import Bundle, open_bundle
from model.checkpoint import load_checkpoint
from model.errors import EngineError
from model.language_model import LanguageModel
from tests.app.bundles import export_small_bundle
from tests.app.every_engine import EVERY_ENGINE, EXACT, TOLERANCE, Build


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(export_small_bundle(tmp_path_factory.mktemp("every"), ENGINES))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> LanguageModel:
    """The model itself, in float64."""
    return load_checkpoint(bundle.folder.parent / "checkpoint")[0].double().eval()


@pytest.fixture(scope="module", params=EVERY_ENGINE)
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    build: Build = request.param
    return build(bundle)


@pytest.fixture(scope="module")
def other(bundle: Bundle) -> Engine:
    """An engine that takes turns with the others: ONNX Runtime in float32, which every machine has."""
    [build] = [param.values[0] for param in EVERY_ENGINE if param.id == "onnx-float32-cpu"]
    assert callable(build)
    loaded: Engine = build(bundle)
    return loaded


def sample(engine: Engine, rows: int, steps: int, seed: int = 0) -> tuple[Ids, Floats]:
    """Random ids `[rows, steps]` and states `[rows, S]`."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, engine.vocabulary_size, (rows, steps)).astype(np.int32)
    return ids, rng.uniform(-0.9, 0.9, (rows, engine.state_size)).astype(np.float32)


def lengths_of(*lengths: int) -> Ids:
    return np.array(lengths, np.int32)


def expected(model: LanguageModel, ids: Ids, state: Floats) -> tuple[Any, Any, Any]:
    """Hidden, state and log-probabilities after `ids [B, T]`, in float64."""
    with torch.inference_mode():
        hidden, after = model(torch.from_numpy(ids).long(), torch.from_numpy(state).double())
        return hidden.numpy(), after.numpy(), model.log_probabilities(hidden).numpy()


def close(found: Any, wanted: Any, engine: Engine) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[engine.precision])


def same(found: Any, wanted: Any, engine: Engine) -> None:
    """To the bit where sums are exact; else as two computations of the same are."""
    if engine.precision in EXACT:
        np.testing.assert_array_equal(found, wanted)
    else:
        close(found, wanted, engine)


def test_it_is_of_the_bundles_model(engine: Engine, bundle: Bundle) -> None:
    card = bundle.manifest.model
    assert (engine.vocabulary_size, engine.state_size) == (card.vocabulary_size, card.state_size)
    assert engine.hidden_size == card.embedding_size
    assert 1 in engine.step_lengths


@given(lengths=st.lists(st.integers(0, 40), max_size=6), seed=st.integers(0, 2**16))
def test_any_ragged_batch_gives_the_models_values_and_final_states(
    engine: Engine, model: LanguageModel, lengths: list[int], seed: int
) -> None:
    ids, state = sample(engine, len(lengths), max(lengths, default=0), seed)
    given_state = state.copy()
    hidden, after = engine.advance(ids, lengths_of(*lengths), state)
    assert [array.dtype.name for array in (hidden, after)] == ["float32", "float32"]
    assert (hidden.shape, after.shape) == ((*ids.shape, engine.hidden_size), state.shape)
    np.testing.assert_array_equal(state, given_state)
    for row, length in enumerate(lengths):
        if length == 0:
            np.testing.assert_array_equal(after[row], state[row])
            continue
        vectors, end, likely = expected(model, ids[[row], :length], state[[row]])
        close(hidden[row, :length], vectors[0], engine)
        close(after[row], end[0], engine)
        np.testing.assert_array_equal(
            after[row, -2 * engine.hidden_size : -engine.hidden_size], hidden[row, length - 1]
        )
        close(engine.log_probabilities(hidden[row, :length]), likely[0], engine)


@given(cuts=st.lists(st.integers(0, 17), min_size=1, max_size=5), seed=st.integers(0, 2**16))
def test_reading_in_parts_with_the_state_carried_gives_what_reading_at_once_does(
    engine: Engine, cuts: list[int], seed: int
) -> None:
    ids, state = sample(engine, 2, sum(cuts), seed)
    whole, end = engine.advance(ids, lengths_of(sum(cuts), sum(cuts)), state)
    start = 0
    for cut in cuts:
        part, state = engine.advance(ids[:, start : start + cut], lengths_of(cut, cut), state)
        same(part, whole[:, start : start + cut], engine)
        start += cut
    same(state, end, engine)


@pytest.mark.parametrize("rows", [2, 33, 128])
def test_a_row_is_the_same_alone_and_in_a_batch(engine: Engine, rows: int) -> None:
    ids, state = sample(engine, rows, 9)
    hidden, after = engine.advance(ids, np.full(rows, 9, np.int32), state)
    alone, alone_after = engine.advance(ids[-1:], lengths_of(9), state[-1:])
    same(hidden[-1:], alone, engine)
    same(after[-1:], alone_after, engine)
    same(engine.log_probabilities(hidden[:, -1])[-1:], engine.log_probabilities(hidden[-1:, -1]), engine)


def test_the_same_call_gives_the_same_bits(engine: Engine) -> None:
    ids, state = sample(engine, 5, 21)
    lengths = lengths_of(21, 3, 16, 0, 1)
    calls: list[Callable[[], Any]] = [
        lambda: engine.advance(ids, lengths, state)[1],
        lambda: engine.log_probabilities(state[:, -2 * engine.hidden_size : -engine.hidden_size]),
    ]
    for call in calls:
        first = call()
        for _ in range(3):
            np.testing.assert_array_equal(call(), first)


def test_a_state_moves_to_another_engine_and_back(engine: Engine, other: Engine, model: LanguageModel) -> None:
    ids, start = sample(engine, 3, 30)
    state = start
    for turn, reader in enumerate([engine, other, engine]):
        part = ids[:, 10 * turn : 10 * turn + 10]
        _, state = reader.advance(part, np.full(3, 10, np.int32), state)
    _, end, _ = expected(model, ids, start)
    close(state, end, engine)


@given(rows=st.integers(0, 70), k=st.integers(1, 100), seed=st.integers(0, 2**16))
def test_scores_ranks_and_likeliest_words_are_those_of_the_log_probabilities(
    engine: Engine, rows: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    hidden = rng.uniform(-0.9, 0.9, (rows, engine.hidden_size)).astype(np.float32)
    targets = rng.integers(0, engine.vocabulary_size, rows).astype(np.int32)
    likely = engine.log_probabilities(hidden)
    values, ranks = engine.score(hidden, targets)
    np.testing.assert_array_equal(values, likely[np.arange(rows), targets])
    np.testing.assert_array_equal(ranks, 1 + (likely > values[:, None]).sum(axis=1))
    best, found = engine.top_k(hidden, k)
    np.testing.assert_array_equal(best, np.argsort(-likely, axis=1, kind="stable")[:, :k])
    np.testing.assert_array_equal(found, np.take_along_axis(likely, best, axis=1))
    np.testing.assert_allclose(np.exp(likely.astype(np.float64)).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "lengths", "rows"),
    [
        ([[-1]], [1], 1),
        ([[10**6]], [1], 1),
        ([[1, 2]], [3], 1),
        ([[1, 2]], [-1], 1),
        ([[1]], [1, 1], 1),
        ([[1]], [1], 2),
    ],
)
def test_what_does_not_fit_is_refused(engine: Engine, ids: list[list[int]], lengths: list[int], rows: int) -> None:
    with pytest.raises(EngineError):
        engine.advance(np.array(ids, np.int32), lengths_of(*lengths), np.zeros((rows, engine.state_size), np.float32))


def test_a_head_refuses_what_does_not_fit(engine: Engine) -> None:
    hidden = np.zeros((1, engine.hidden_size), np.float32)
    with pytest.raises(EngineError):
        engine.top_k(hidden, 0)
    with pytest.raises(EngineError):
        engine.log_probabilities(hidden[:, 1:])
    for targets in ([engine.vocabulary_size], [-1], [0, 0]):
        with pytest.raises(EngineError):
            engine.score(hidden, np.array(targets, np.int32))


def test_ids_beyond_a_rows_length_are_never_looked_at(engine: Engine) -> None:
    ids, state = sample(engine, 2, 6)
    padded = ids.copy()
    padded[1, 3:] = -7
    (hidden, after), (wanted, wanted_after) = (engine.advance(each, lengths_of(6, 3), state) for each in (padded, ids))
    np.testing.assert_array_equal(after, wanted_after)
    np.testing.assert_array_equal(hidden[0], wanted[0])
    np.testing.assert_array_equal(hidden[1, :3], wanted[1, :3])
