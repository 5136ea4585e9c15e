"""Figures of scored tokens."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import scoring


def as_ids(ids: list[int]) -> npt.NDArray[np.int32]:
    return np.array(ids, np.int32)


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
