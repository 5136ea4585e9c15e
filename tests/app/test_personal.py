"""Personal words as arithmetic: the cache of the equations, and a distribution whatever was typed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.personal import TINY, left_of_unknown, mixed, own_words, shares
from model.config import ModelConfig
from model.language_model import LanguageModel
from training.evaluate import read_chunks
from training.likelihood import losses
from training.neural_cache import NeuralCache, evaluate_with_cache

SIZE = 12


def logarithms(values: list[float]) -> np.ndarray:
    """Log-probabilities of as many words."""
    row = np.array(values, np.float64)
    return np.asarray(row - np.log(np.exp(row).sum()), np.float32)


rows = st.lists(st.floats(-30, 30), min_size=SIZE, max_size=SIZE).map(logarithms)


@pytest.mark.parametrize(("weight", "theta", "window"), [(0.15, 0.5, 7), (0.4, 2.0, 500), (0.1, 0.0, 1)])
def test_a_text_has_the_likelihood_that_training_gives_it_with_the_same_cache(
    weight: float, theta: float, window: int
) -> None:
    torch.manual_seed(3)
    config = ModelConfig(vocabulary_size=30, embedding_size=16, hidden_size=24, layers=2, groups=4, levels=2)
    model = LanguageModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    ids = np.random.default_rng(5).zipf(1.5, 200).clip(max=30).astype(np.int32) - 1
    expected = evaluate_with_cache(model, ids, 0, NeuralCache(weight, theta, window))
    [(hidden, _)] = read_chunks(model, ids, 0, len(ids))
    with torch.no_grad():
        # One loss for each word that may come, in each place.
        likely = np.stack([-losses(model, hidden, torch.full((len(ids),), word)).numpy() for word in range(30)], axis=1)
    vectors = hidden.detach().numpy()
    total = 0.0
    for place, token_id in enumerate(ids.tolist()):
        past = slice(max(0, place - window), place)
        share = shares(vectors[past], vectors[place], theta) if place else np.empty(0)
        total -= float(mixed(likely[place], ids[past], share, weight)[token_id])
    assert total == pytest.approx(expected.negative_log_likelihood, rel=1e-5)


@given(
    likely=rows,
    vectors=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=9),
    words=st.lists(st.integers(0, SIZE - 1), min_size=9, max_size=9),
    own=st.lists(st.sampled_from(["Zog", "zog", "Marlow", "1897"]), max_size=9),
    weight=st.floats(0, 0.99),
    theta=st.floats(0, 100),
)
def test_words_of_the_vocabulary_own_words_and_new_ones_have_one_together(
    likely: np.ndarray, vectors: list[list[float]], words: list[int], own: list[str], weight: float, theta: float
) -> None:
    # The last of the remembered words are those outside the vocabulary, as far as both are remembered.
    unknown = len(own)
    ids = np.array(words[: len(vectors)], np.int32)
    ids[max(0, len(ids) - unknown) :] = 0
    query = np.array(vectors[0], np.float32)
    share = shares(np.array(vectors, np.float32), query, theta)
    assert share.sum() == pytest.approx(1)
    values = mixed(likely, ids, share, weight)
    assert np.isfinite(values).all()
    assert np.exp(values.astype(np.float64)).sum() == pytest.approx(1, rel=1e-5)
    cached = np.zeros(unknown)
    remembered = min(unknown, len(ids))
    cached[unknown - remembered :] = share[len(ids) - remembered :]
    found = own_words(own, cached, float(likely[0]), weight)
    values[0] = left_of_unknown(float(values[0]), found)
    assert math.exp(values[0]) > 0
    together = np.exp(values.astype(np.float64)).sum() + sum(map(math.exp, found.log_probabilities))
    assert together == pytest.approx(1, rel=1e-5)


def test_unknown_is_shared_by_how_often_words_were_typed_and_what_the_cache_has_of_each() -> None:
    # Four typings of two words: of the model's part 3/6 and 1/6 are theirs, and 2/6 are left to new words.
    found = own_words(["Zog", "Marlow", "Zog", "Zog"], np.array([0.0, 0.1, 0.2, 0.3]), math.log(0.06), 0.5)
    assert found.spellings == ["Zog", "Marlow"]
    expected = [0.5 * 0.5 + 0.5 * 0.06 * 3 / 6, 0.5 * 0.1 + 0.5 * 0.06 / 6]
    assert [math.exp(it) for it in found.log_probabilities] == pytest.approx(expected)
    whole = 0.5 * 0.06 + 0.5 * (0.6 + 0.1)
    rest = 0.5 * 0.06 * 2 / 6 + 0.5 * 0.1
    assert math.exp(left_of_unknown(math.log(whole), found)) == pytest.approx(rest)


def test_without_any_word_outside_the_vocabulary_there_is_none_to_suggest() -> None:
    assert own_words([], np.empty(0), math.log(0.1), 0.2).spellings == []
    assert left_of_unknown(math.log(0.1), own_words([], np.empty(0), math.log(0.1), 0.2)) == pytest.approx(
        math.log(0.1)
    )


def test_where_nothing_is_remembered_the_models_probabilities_stand_alone() -> None:
    likely = logarithms([float(place) for place in range(SIZE)])
    assert mixed(likely, np.empty(0, np.int32), np.empty(0), 0.5) is likely


def test_the_models_own_row_is_left_as_it_is() -> None:
    likely = logarithms([0.0] * SIZE)
    before = likely.copy()
    mixed(likely, np.array([3], np.int32), np.ones(1), 0.5)
    assert (likely == before).all()


def test_a_word_that_neither_holds_possible_has_a_logarithm_all_the_same() -> None:
    likely = logarithms([0.0] * (SIZE - 1) + [-3000.0])
    values = mixed(likely, np.array([SIZE - 1, 0], np.int32), np.array([0.0, 1.0]), 0.5)
    assert values[-1] == pytest.approx(math.log(TINY))
