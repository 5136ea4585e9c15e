"""Scoring of ids: the same numbers however sequences are grouped and cut."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import scoring
from tests.app.fakes import NumpyEngine

SIZE = 23
ENGINE = NumpyEngine(SIZE)

sequences = st.lists(st.lists(st.integers(0, SIZE - 1), max_size=40), max_size=12)


def one_step_at_a_time(context: list[int], ids: list[int]) -> list[tuple[float, int]]:
    """Log-probability and rank of each id after all before it."""
    state = np.zeros(ENGINE.state_size, np.float32)
    for token_id in context:
        hidden, state = ENGINE.step(token_id, state)
    found = []
    for token_id in ids:
        values = ENGINE.log_probabilities(hidden[None])[0]
        found.append((float(values[token_id]), 1 + sum(value > values[token_id] for value in values)))
        hidden, state = ENGINE.step(token_id, state)
    return found


def as_ids(ids: list[int]) -> npt.NDArray[np.int32]:
    return np.array(ids, np.int32)


@settings(max_examples=30)
@given(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=9), sequences, st.integers(1, 50), st.integers(1, 5))
def test_grouping_and_cutting_change_no_score(
    context: list[int], texts: list[list[int]], chunk_tokens: int, chunk_rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_TOKENS", max(chunk_tokens, chunk_rows))
        patch.setattr(scoring, "CHUNK_ROWS", chunk_rows)
        found = scoring.score(ENGINE, as_ids(context), [as_ids(ids) for ids in texts])
    for scores, ids in zip(found, texts, strict=True):
        expected = one_step_at_a_time(context, ids)
        assert scores.ranks.tolist() == [rank for _, rank in expected]
        assert scores.log_probabilities.tolist() == pytest.approx([value for value, _ in expected], abs=1e-6)


@settings(max_examples=20)
@given(sequences)
def test_no_call_of_the_engine_exceeds_the_bounds(texts: list[list[int]]) -> None:
    engine = NumpyEngine(SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_TOKENS", 16)
        patch.setattr(scoring, "CHUNK_ROWS", 4)
        scoring.score(engine, as_ids([0] * 20), [as_ids(ids) for ids in texts])
    assert all(rows <= 4 and rows * width <= 16 for rows, width in engine.calls)


def test_sequences_of_like_length_are_read_side_by_side() -> None:
    engine = NumpyEngine(SIZE)
    scoring.score(engine, as_ids([0]), [as_ids([1] * length) for length in (9, 3, 9, 3, 9)])
    assert engine.calls == [(1, 1), (5, 8)]


def test_a_check_that_raises_stops_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 8)
    engine = NumpyEngine(SIZE)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scoring.score(engine, as_ids([0]), [as_ids([1] * 100)], check)
    assert engine.calls == [(1, 1), (1, 8)]


@given(st.lists(st.integers(-3, 0), min_size=1, max_size=30), st.data())
def test_the_best_candidates_come_first_and_ties_by_lower_id(values: list[int], data: st.DataObject) -> None:
    likely = np.array(values, np.float32)
    candidates = sorted(data.draw(st.sets(st.integers(0, len(values) - 1))))
    k = data.draw(st.integers(1, 35))
    ids, found = scoring.best(likely, as_ids(candidates), k)
    assert ids.tolist() == sorted(candidates, key=lambda i: (-values[i], i))[:k]
    assert found.tolist() == [values[i] for i in ids]


def test_figures_are_sums_over_all_tokens_and_over_known_ones() -> None:
    figures = scoring.likelihood(np.log(np.array([0.5, 0.25, 0.125], np.float32)), np.array([False, True, False]))
    assert figures.log_likelihood == pytest.approx(-6 * math.log(2))
    assert (figures.token_count, figures.oov_count) == (3, 1)
    assert figures.perplexity == pytest.approx(4)
    assert figures.perplexity_without_oov == pytest.approx(4)
    both = scoring.total([figures, figures])
    assert both.log_likelihood == pytest.approx(-12 * math.log(2))
    assert (both.token_count, both.oov_count) == (6, 2)


def test_sums_are_exact_far_beyond_float32() -> None:
    figures = scoring.likelihood(np.full(1_000_000, -0.1, np.float32), np.zeros(1_000_000, np.bool_))
    assert figures.log_likelihood == pytest.approx(1_000_000 * float(np.float32(-0.1)), rel=1e-12)


def test_perplexity_of_nothing_is_none_and_of_the_impossible_infinite() -> None:
    assert scoring.perplexity(0.0, 0) is None
    assert scoring.perplexity(-1e6, 1) == math.inf


def test_surprisal_is_in_bits() -> None:
    assert scoring.bits(math.log(0.125)) == pytest.approx(3)
