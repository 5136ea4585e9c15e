"""Softmax temperature against a plain loop in float64, and its tuning against a search of that loop."""

import math

import numpy as np
import pytest
import torch

from model.errors import ConfigurationError
from model.language_model import LanguageModel
from tests.training.conftest import config
from training import temperature as temperature_module
from training.data import Data
from training.evaluate import evaluate
from training.temperature import HIGHEST, LOWEST, evaluate_at_temperature, tune_temperature


@pytest.fixture
def model(data: Data) -> LanguageModel:
    """A model that predicts a little too surely in places, so that its best temperature is neither 1 nor a bound."""
    torch.manual_seed(1)
    model = LanguageModel(config(data.vocabulary)).eval()
    with torch.no_grad():
        counts = torch.bincount(torch.from_numpy(data.valid).long(), minlength=len(data.vocabulary))
        model.decoder.bias.copy_(2 * torch.log(counts + 0.5))
        model.embedding.weight.mul_(10)
    return model


def logits_word_by_word(model: LanguageModel, ids: list[int], eos_id: int) -> list[np.ndarray]:
    """Logits before each word, read one word after the other in float64."""
    rows, before = [], eos_id
    model = model.double()
    state = model.initial_state(1)
    for target in ids:
        hidden, state = model(torch.tensor([[before]]), state)
        rows.append((hidden[0, 0] @ model.embedding.weight.t() + model.decoder.bias).detach().numpy())
        before = target
    model.float()
    return rows


def loss_at(temperature: float, logits: list[np.ndarray], ids: list[int]) -> float:
    """Negative log-likelihood in nats of softmax(logits / T)."""
    total = 0.0
    for row, target in zip(logits, ids, strict=True):
        scaled = np.exp(row / temperature)
        total -= math.log(scaled[target] / scaled.sum())
    return total


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_scores_at_a_temperature_equal_a_loop_over_single_words(
    data: Data, model: LanguageModel, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temperature_module, "ROWS", 7)
    ids = data.valid.tolist()
    expected = loss_at(temperature, logits_word_by_word(model, ids, data.vocabulary.eos_id), ids)
    result = evaluate_at_temperature(model, data.valid, data.vocabulary.eos_id, temperature)
    assert result.tokens == len(data.valid)
    assert result.negative_log_likelihood == pytest.approx(expected, rel=1e-5)


def test_a_temperature_of_1_is_static_evaluation_under_another_name(data: Data, model: LanguageModel) -> None:
    static = evaluate(model, data.valid, data.vocabulary.eos_id)
    result = evaluate_at_temperature(model, data.valid, data.vocabulary.eos_id, 1)
    assert result.perplexity == pytest.approx(static.perplexity, rel=1e-6)
    assert "perplexity" not in result.record()
    assert result.record()["temperature_perplexity"] == result.perplexity


def test_the_tuned_temperature_is_where_the_loop_has_its_minimum(data: Data, model: LanguageModel) -> None:
    ids = data.valid.tolist()
    logits = logits_word_by_word(model, ids, data.vocabulary.eos_id)
    low, high = 0.3, 5.0
    for _ in range(40):
        third = (high - low) / 3
        left, right = (loss_at(temperature, logits, ids) for temperature in (low + third, high - third))
        low, high = (low, high - third) if left < right else (low + third, high)
    tuned = tune_temperature(model, data.valid, data.vocabulary.eos_id)
    assert 1.1 < tuned < 4
    assert tuned == pytest.approx((low + high) / 2, rel=1e-3)


def test_tuning_takes_few_readings_of_the_text(data: Data, model: LanguageModel) -> None:
    read: list[int] = []
    tune_temperature(model, data.valid, data.vocabulary.eos_id, advance=read.append)
    assert 2 * len(data.valid) <= sum(read) <= 8 * len(data.valid)


def test_beginning_with_a_part_of_the_text_finds_the_same_and_reads_the_whole_less_often(
    data: Data, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = {}
    tuned = {}
    for sample in (len(data.valid), len(data.valid) // 3):
        monkeypatch.setattr(temperature_module, "SAMPLE", sample)
        chunks: list[int] = []
        tuned[sample] = tune_temperature(model, data.valid, data.vocabulary.eos_id, advance=chunks.append)
        readings[sample] = chunks.count(len(data.valid))
    whole, part = tuned.values()
    assert part == pytest.approx(whole, rel=1e-3)
    of_whole, of_part = readings.values()
    assert 1 <= of_part < of_whole


@pytest.mark.parametrize(("sign", "bound"), [(1, LOWEST), (-1, HIGHEST)])
def test_a_model_that_is_always_right_or_always_wrong_gets_the_nearest_temperature_allowed(
    data: Data, sign: int, bound: float
) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    with torch.no_grad():
        model.decoder.bias[5] = sign * 2.0
        model.embedding.weight.zero_()
    assert tune_temperature(model, np.full(40, 5, np.int32), 5) == pytest.approx(bound, rel=1e-3)


def test_where_all_words_are_equally_probable_the_temperature_stays_1(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    torch.nn.init.zeros_(model.embedding.weight)
    assert tune_temperature(model, data.valid, data.vocabulary.eos_id) == 1


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_what_is_no_temperature_is_refused(data: Data, model: LanguageModel, temperature: float) -> None:
    with pytest.raises(ConfigurationError, match="temperature must be a finite number above 0"):
        evaluate_at_temperature(model, data.valid, data.vocabulary.eos_id, temperature)


def test_a_mixture_of_softmaxes_is_tuned_to_the_temperature_that_a_search_finds(data: Data) -> None:
    torch.manual_seed(6)
    model = LanguageModel(config(data.vocabulary, softmaxes=3)).eval()
    with torch.no_grad():
        counts = torch.bincount(torch.from_numpy(data.valid).long(), minlength=len(data.vocabulary))
        model.decoder.bias.copy_(2 * torch.log(counts + 0.5))
        model.embedding.weight.mul_(20)
    tuned = tune_temperature(model, data.valid, data.vocabulary.eos_id)
    assert LOWEST < tuned < HIGHEST
    assert abs(tuned - 1) > 0.05

    def loss(temperature: float) -> float:
        return evaluate_at_temperature(model, data.valid, data.vocabulary.eos_id, temperature).negative_log_likelihood

    candidates = np.geomspace(LOWEST, HIGHEST, 400)
    best = min(candidates, key=loss)
    assert tuned == pytest.approx(best, rel=0.02)
    assert loss(tuned) <= loss(best) + 1e-4
