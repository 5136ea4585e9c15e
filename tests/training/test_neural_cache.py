"""The neural cache against its equations written as a loop over words in float64."""

import math

import numpy as np
import pytest
import torch

from model.errors import ConfigurationError
from model.language_model import LanguageModel
from tests.training.conftest import config
from training import neural_cache as cache_module
from training.data import Data
from training.evaluate import evaluate
from training.neural_cache import NeuralCache, evaluate_with_cache


@pytest.fixture
def model(data: Data) -> LanguageModel:
    """A model whose hidden vectors differ enough for their similarity to matter."""
    torch.manual_seed(1)
    model = LanguageModel(config(data.vocabulary)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def word_by_word(model: LanguageModel, ids: list[int], eos_id: int, cache: NeuralCache) -> float:
    """Negative log-likelihood in nats, the whole distribution of the cache made for every word."""
    model = model.double()
    total, before, state = 0.0, eos_id, model.initial_state(1)
    past: list[tuple[np.ndarray, int]] = []
    for target in ids:
        output, state = model(torch.tensor([[before]]), state)
        hidden = output[0, 0].detach().numpy()
        p = model.log_probabilities(output)[0, 0].exp().detach().numpy()
        if past:
            p_cache = np.zeros_like(p)
            for key, word in past[-cache.window :]:
                p_cache[word] += math.exp(cache.theta * hidden @ key)
            p = (1 - cache.lambda_) * p + cache.lambda_ * p_cache / p_cache.sum()
        assert p.sum() == pytest.approx(1)
        total -= math.log(max(p[target], 1e-38))
        past.append((hidden, target))
        before = target
    model.float()
    return total


@pytest.mark.parametrize("rows", [1, 7, 500])
@pytest.mark.parametrize("window", [1, 5, 7, 30, 10_000])
def test_cached_scores_equal_the_equations_over_any_chunks(
    data: Data, model: LanguageModel, window: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ROWS", rows)
    cache = NeuralCache(0.3, 2.0, window)
    expected = word_by_word(model, data.valid.tolist(), data.vocabulary.eos_id, cache)
    result = evaluate_with_cache(model, data.valid, data.vocabulary.eos_id, cache)
    assert result.tokens == len(data.valid)
    assert result.negative_log_likelihood == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", [(0.3, 0.0, 10), (0.3, 8.0, 10), (0.9, 2.0, 10), (1.0, 2.0, 10)])
def test_lambda_and_theta_mean_what_the_equations_say(
    data: Data, model: LanguageModel, settings: tuple[float, float, int]
) -> None:
    cache = NeuralCache(*settings)
    expected = word_by_word(model, data.valid.tolist(), data.vocabulary.eos_id, cache)
    result = evaluate_with_cache(model, data.valid, data.vocabulary.eos_id, cache)
    assert result.negative_log_likelihood == pytest.approx(expected, rel=1e-5)
    other = evaluate_with_cache(model, data.valid, data.vocabulary.eos_id, NeuralCache(0.3, 2.0, 10))
    assert abs(result.negative_log_likelihood - other.negative_log_likelihood) > 0.1


def test_similarities_too_large_for_an_exponential_still_give_a_figure(data: Data, model: LanguageModel) -> None:
    result = evaluate_with_cache(model, data.valid, data.vocabulary.eos_id, NeuralCache(0.1, 1e6, 30))
    assert math.isfinite(result.perplexity)


def test_without_weight_the_cache_changes_nothing(data: Data, model: LanguageModel) -> None:
    static = evaluate(model, data.valid, data.vocabulary.eos_id)
    result = evaluate_with_cache(model, data.valid, data.vocabulary.eos_id, NeuralCache(0, 1, 100))
    assert result.perplexity == pytest.approx(static.perplexity, rel=1e-6)


def test_a_text_that_repeats_itself_is_predicted_better_with_a_cache(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    ids = np.tile(data.valid[:12], 10)
    static = evaluate(model, ids, data.vocabulary.eos_id)
    result = evaluate_with_cache(model, ids, data.vocabulary.eos_id, NeuralCache(0.3, 1, 50))
    assert result.perplexity < 0.8 * static.perplexity


def test_no_more_similarities_exist_at_a_time_than_said(
    data: Data, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SCORES", 60)
    chunks: list[int] = []
    cache = NeuralCache(0.1, 1, 20)
    result = evaluate_with_cache(model, data.train, data.vocabulary.eos_id, cache, advance=chunks.append)
    assert max(chunks) == 3
    assert sum(chunks) == result.tokens == len(data.train)


def test_a_result_says_which_evaluation_it_was(data: Data, model: LanguageModel) -> None:
    result = evaluate_with_cache(model, data.valid, data.vocabulary.eos_id, NeuralCache(0.1, 1.0, 500))
    assert result.record() == {
        "tokens": len(data.valid),
        "evaluation": "neural_cache",
        "parameters": {"lambda": 0.1, "theta": 1.0, "window": 500},
        "neural_cache_perplexity": result.perplexity,
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((-0.1, 1.0, 5), "lambda must lie between 0 and 1"),
        ((1.1, 1.0, 5), "lambda must lie between 0 and 1"),
        ((math.nan, 1.0, 5), "lambda must lie between 0 and 1"),
        ((0.1, -1.0, 5), "theta must be a finite number of at least 0"),
        ((0.1, math.inf, 5), "theta must be a finite number of at least 0"),
        ((0.1, math.nan, 5), "theta must be a finite number of at least 0"),
        ((0.1, 1.0, 0), "window must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: tuple[float, float, int], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        NeuralCache(*settings)
