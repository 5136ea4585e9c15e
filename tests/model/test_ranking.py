"""The likeliest words of a row, against a full sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ranking import rank, top_k


@given(
    size=st.integers(1, 300),
    k=st.integers(1, 320),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_the_best_of_a_row_are_those_of_a_full_sort_ties_by_lower_id(size: int, k: int, seed: int, levels: int) -> None:
    likely = -np.random.default_rng(seed).integers(levels, size=size).astype(np.float32)
    expected = sorted(range(size), key=lambda token_id: (-likely[token_id], token_id))[:k]
    best, values = top_k(likely, k)
    assert best.tolist() == expected
    assert values.tolist() == likely[expected].tolist()
    assert best.dtype == np.int32
    for token_id in range(size):
        assert rank(likely, token_id) == 1 + sum(value > likely[token_id] for value in likely)


@pytest.mark.parametrize("k", [1, 5, 100, 519, 520, 521, 4000])
def test_a_large_row_s_best_are_found(k: int) -> None:
    likely = np.random.default_rng(k).normal(size=33_278).astype(np.float32)
    assert top_k(likely, k)[0].tolist() == np.argsort(-likely, kind="stable")[:k].tolist()
