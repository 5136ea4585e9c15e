"""Updates: their rate, the state they carry, and captured ones that are the same as plain ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from model.dropout import Dropout
from model.language_model import LanguageModel
from tests.training.conftest import config, recipe
from training.data import Data
from training.objective import Objective
from training.recipe import Optimizer, Recipe, build_optimizer
from training.updates import GraphedUpdates, Updates

ROWS = 3


def updates(data: Data, settings: Recipe, kind: type[Updates] = Updates, device: str = "cpu") -> Updates:
    torch.manual_seed(3)
    model = LanguageModel(config(data.vocabulary), settings.dropout)
    objective = Objective(model, settings, bfloat16=False).to(device)
    return kind(objective, build_optimizer(objective.parameters(), settings), settings, model.initial_state(ROWS))


def batches(data: Data, lengths: list[int], device: str = "cpu") -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    drawn = [torch.randint(len(data.vocabulary), (ROWS, n + 1), generator=generator).to(device) for n in lengths]
    return [(ids[:, :-1], ids[:, 1:]) for ids in drawn]


def parameters(run: Updates) -> list[Tensor]:
    return [parameter.detach().cpu() for parameter in run.objective.parameters()]


def test_an_update_of_sgd_moves_the_weights_by_its_rate_times_the_clipped_gradient(data: Data) -> None:
    settings = recipe(optimizer=Optimizer.SGD, clip=0.01, dropout=Dropout())
    run = updates(data, settings)
    before = copy.deepcopy(parameters(run))
    (inputs, targets), *_ = batches(data, [5])
    plain = copy.deepcopy(run.objective)
    loss = run.make(inputs, targets, 0.7)
    expected, mean, state = plain(inputs, targets, torch.zeros_like(run.state))
    expected.backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    assert loss == mean
    assert torch.equal(run.state, state)
    for then, now, other in zip(before, parameters(run), plain.parameters(), strict=True):
        assert other.grad is not None
        torch.testing.assert_close(now, then - 0.7 * other.grad)


def test_the_next_update_goes_on_from_the_state_after_the_last(data: Data) -> None:
    run = updates(data, recipe(dropout=Dropout()))
    (first, second) = batches(data, [5, 4])
    run.make(*first, 0.0)
    middle = run.state.clone()
    run.make(*second, 0.0)
    _, _, expected = run.objective(*second, middle)
    torch.testing.assert_close(run.state, expected)
    run.restart(middle)
    assert torch.equal(run.state, middle)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", [Optimizer.SGD, Optimizer.ADAM, Optimizer.ADAMW])
def test_captured_updates_are_those_that_are_made_one_by_one(data: Data, optimizer: Optimizer) -> None:
    settings = recipe(optimizer=optimizer, dropout=Dropout(), learning_rate=0.1)
    plain, captured = (updates(data, settings, kind, "cuda") for kind in (Updates, GraphedUpdates))
    for step, batch in enumerate(batches(data, [5, 5, 3, 5, 3, 3, 5], "cuda")):
        losses = [run.make(*batch, 0.1 / (step + 1)).item() for run in (plain, captured)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for ours, theirs in zip(parameters(captured), parameters(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(captured.state, plain.state, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_every_run_of_a_captured_update_drops_other_numbers(data: Data) -> None:
    settings = recipe(dropout=Dropout(word=0.1, input=0.4, hidden=0.3, output=0.4, weight=0.5, locked=True))
    run = updates(data, settings, GraphedUpdates, "cuda")
    (batch,) = batches(data, [5], "cuda")
    losses = []
    for _ in range(6):
        run.restart(torch.zeros_like(run.state))
        losses.append(run.make(*batch, 0.0).item())
    assert len(set(losses)) == len(losses)
