"""Evaluation against a plain loop, one word at a time."""

import math

import numpy as np
import pytest
import torch

from model.dropout import Dropout
from model.language_model import LanguageModel
from tests.training.conftest import config
from training import evaluate as evaluate_module
from training.data import Data
from training.evaluate import evaluate


def word_by_word(model: LanguageModel, ids: list[int], eos_id: int) -> float:
    """Negative log-likelihood in nats, reading one word after the other."""
    total, state, before = 0.0, model.initial_state(1), eos_id
    for target in ids:
        hidden, state = model(torch.tensor([[before]]), state)
        total -= model.log_probabilities(hidden)[0, 0, target].item()
        before = target
    return total


def test_one_stream_scores_every_token_with_all_before_it_as_context(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "TOKENS", 7)
    model = LanguageModel(config(data.vocabulary)).eval()
    result = evaluate(model, data.valid, data.vocabulary.eos_id)
    expected = word_by_word(model, data.valid.tolist(), data.vocabulary.eos_id)
    assert result.tokens == len(data.valid)
    assert result.negative_log_likelihood == pytest.approx(expected, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(expected / len(data.valid)), rel=1e-5)


def test_streams_are_pieces_that_each_start_without_context(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    stream = np.concatenate([[data.vocabulary.eos_id], data.valid])
    length = len(stream) // 2
    halves = [stream[:length], stream[length : 2 * length]]
    expected = sum(word_by_word(model, half[1:].tolist(), int(half[0])) for half in halves)
    result = evaluate(model, data.valid, data.vocabulary.eos_id, streams=2)
    assert result.tokens == 2 * (length - 1)
    assert result.negative_log_likelihood == pytest.approx(expected, rel=1e-5)


def test_what_is_unknown_is_left_out_of_the_second_figure_and_of_no_other(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    unknown = data.vocabulary.id_of("cat")
    result = evaluate(model, data.valid, data.vocabulary.eos_id, unk_id=unknown)
    everything = evaluate(model, data.valid, data.vocabulary.eos_id)
    assert (result.negative_log_likelihood, result.tokens) == (everything.negative_log_likelihood, everything.tokens)
    state, before, expected = model.initial_state(1), data.vocabulary.eos_id, []
    for target in data.valid.tolist():
        hidden, state = model(torch.tensor([[before]]), state)
        if target != unknown:
            expected.append(-model.log_probabilities(hidden)[0, 0, target].item())
        before = target
    assert result.known is not None
    assert result.known.tokens == len(expected) == len(data.valid) - 4
    assert result.known.perplexity == pytest.approx(math.exp(sum(expected) / len(expected)), rel=1e-5)
    assert result.record()["perplexity_of_known"] == result.known.perplexity
    assert everything.known is None
    assert "perplexity_of_known" not in everything.record()


def test_of_a_text_without_a_known_word_there_is_no_second_figure(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    unknown = data.vocabulary.unk_id
    assert evaluate(model, np.full(9, unknown, np.int32), 0, unk_id=unknown).known is None


def test_evaluation_leaves_the_model_as_it_was_and_ignores_dropout(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary), Dropout.standard(0.5)).train()
    first, second = (evaluate(model, data.valid, data.vocabulary.eos_id).perplexity for _ in range(2))
    assert first == second
    assert model.training


def test_bfloat16_gives_nearly_the_same_perplexity(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary)).eval()
    exact, rounded = (evaluate(model, data.valid, 0, bfloat16=bfloat16).perplexity for bfloat16 in (False, True))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=5e-3)
