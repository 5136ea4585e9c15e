"""What an update minimises, against plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.dropout import Dropout
from model.language_model import LanguageModel
from tests.training.conftest import config, recipe
from training.data import Data
from training.likelihood import losses, mean_loss
from training.objective import Objective
from training.recipe import Recipe

NONE = Dropout()


def prepared(data: Data, settings: Recipe, **changes: object) -> tuple[Objective, Tensor, Tensor, Tensor]:
    """An objective in float64 that evaluates nothing away, a batch, and the state before it."""
    torch.manual_seed(4)
    model = LanguageModel(config(data.vocabulary, **changes), settings.dropout)
    objective = Objective(model, settings, bfloat16=False).double().train()
    for parameter in objective.parameters():
        parameter.data.normal_(std=0.5)
    ids = torch.from_numpy(data.train[:24].astype("int64")).view(3, 8)
    return objective, ids[:, :-1], ids[:, 1:], torch.randn(3, model.config.state_size).double().tanh()


def test_without_regularisers_the_objective_is_the_mean_cross_entropy(data: Data) -> None:
    objective, inputs, targets, state = prepared(data, recipe(dropout=NONE))
    found = objective(inputs, targets, state)
    hidden, after = objective.model(inputs, state)
    logits = hidden @ objective.model.embedding.weight.T + objective.model.decoder.bias
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(found.objective, expected)
    torch.testing.assert_close(found.loss, expected.detach())
    torch.testing.assert_close(found.state, after)


def test_activation_and_temporal_regularisation_add_their_published_terms(data: Data) -> None:
    plain, inputs, targets, state = prepared(data, recipe(dropout=NONE))
    regular, *_ = prepared(data, recipe(dropout=NONE, activation=2.0, temporal=0.7))
    hidden, _ = plain.model.read(inputs, state)
    activation = (hidden**2).mean()
    temporal = ((hidden[:, 1:] - hidden[:, :-1]) ** 2).mean()
    before, after = plain(inputs, targets, state), regular(inputs, targets, state)
    torch.testing.assert_close(after.objective - before.objective, (2.0 * activation + 0.7 * temporal).float().double())
    torch.testing.assert_close(after.loss, before.loss)


def test_activation_is_of_the_dropped_output_and_temporal_of_the_whole_one(data: Data) -> None:
    dropout = Dropout(output=0.5, locked=True)
    activation, inputs, targets, state = prepared(data, recipe(dropout=dropout, activation=1.0))
    temporal, *_ = prepared(data, recipe(dropout=dropout, temporal=1.0))
    torch.manual_seed(9)
    raw, _ = activation.model.read(inputs, state)
    dropped = activation.model.drop_output(raw)
    assert (dropped == 0).any()
    for objective, term in ((activation, dropped.square().mean()), (temporal, raw.diff(dim=1).square().mean())):
        torch.manual_seed(9)
        found = objective(inputs, targets, state)
        torch.testing.assert_close(found.objective - found.loss, term.float().double())


def test_a_single_step_has_no_temporal_term(data: Data) -> None:
    objective, inputs, targets, state = prepared(data, recipe(dropout=NONE, temporal=1.0))
    found = objective(inputs[:, :1], targets[:, :1], state)
    assert found.objective.item() == found.loss.item()


def test_past_decoding_adds_the_loss_of_the_word_before_given_the_prediction(data: Data) -> None:
    objective, inputs, targets, state = prepared(data, recipe(dropout=NONE, past_decode=0.1))
    model, decoder = objective.model, objective.past_decoder
    assert decoder is not None
    hidden, _ = model(inputs, state)
    total = 0.0
    for row in range(3):
        for step in range(7):
            likely = torch.softmax(model.embedding.weight @ hidden[row, step] + model.decoder.bias, 0)
            latent = torch.tanh(decoder.map.weight @ (likely @ model.embedding.weight) + decoder.map.bias)
            back = torch.log_softmax(model.embedding.weight @ latent + decoder.bias, 0)
            total -= back[inputs[row, step]].item()
    found = objective(inputs, targets, state)
    assert (found.objective - found.loss).item() == pytest.approx(0.1 * total / 21, rel=1e-6)
    found.objective.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_past_decoding_in_chunks_has_the_loss_and_gradients_of_the_whole(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, inputs, targets, state = prepared(data, recipe(dropout=NONE, past_decode=0.1), softmaxes=2)
    results = []
    for rows in (4, 512):
        monkeypatch.setattr("training.likelihood.ROWS", rows)
        found = objective(inputs, targets, state)
        results.append([found.objective, *torch.autograd.grad(found.objective, list(objective.parameters()))])
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-9, atol=1e-12)


def test_a_mixtures_loss_and_gradients_are_those_of_its_probabilities_whatever_the_chunks(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, inputs, targets, state = prepared(data, recipe(dropout=NONE), softmaxes=3)
    model = objective.model
    hidden = model(inputs, state)[0].flatten(0, 1).detach().requires_grad_()
    parameters = [hidden, model.embedding.weight, *model.decoder.parameters()]
    plain = -model.log_probabilities(hidden).gather(1, targets.flatten()[:, None]).mean()
    expected = torch.autograd.grad(plain, parameters)
    for rows in (6, 512):
        monkeypatch.setattr("training.likelihood.ROWS", rows)
        loss = mean_loss(model, hidden, targets.flatten())
        torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)
        for found, reference in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
            torch.testing.assert_close(found, reference, rtol=1e-6, atol=1e-8)
        each = losses(model, hidden, targets.flatten())
        assert each.mean().item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("softmaxes", [1, 3])
def test_losses_at_a_temperature_are_those_of_divided_logits(data: Data, softmaxes: int) -> None:
    objective, inputs, targets, state = prepared(data, recipe(dropout=NONE), softmaxes=softmaxes)
    model = objective.model
    hidden = model(inputs, state)[0].flatten(0, 1).detach()
    likely = model.log_probabilities(hidden, 0.6).gather(1, targets.flatten()[:, None])[:, 0]
    torch.testing.assert_close(losses(model, hidden, targets.flatten(), 0.6), -likely.float().detach())


@pytest.mark.parametrize("softmaxes", [1, 2])
def test_bfloat16_changes_the_loss_by_rounding_alone(data: Data, softmaxes: int) -> None:
    exact, inputs, targets, state = prepared(data, recipe(dropout=NONE), softmaxes=softmaxes)
    rounded = Objective(exact.model.float(), recipe(dropout=NONE), bfloat16=True)
    found = rounded(inputs, targets, state.float())
    found.objective.backward()
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(exact(inputs, targets, state.float()).loss.item(), rel=3e-3)
    assert all(parameter.grad is not None for parameter in rounded.parameters())
