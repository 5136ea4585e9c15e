"""Means of weights and the trigger of NT-ASGD, against cases worked by hand and torch's own ASGD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import load_checkpoint
from tests.training.conftest import config, recipe
from training.averaging import Average, stopped_improving
from training.data import Data
from training.recipe import Optimizer
from training.resume import Position
from training.trainer import Trainer


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([100.0], False),
        ([100, 90, 80, 81, 82, 83], False),  # Five before the last: none is old enough.
        ([100, 90, 80, 81, 82, 83, 84], False),  # Of the first alone: 84 < 100.
        ([80, 90, 91, 92, 93, 94, 79], False),
        ([80, 90, 91, 92, 93, 94, 81], True),
        ([90, 80, 91, 92, 93, 94, 95, 85], True),  # Older than the latest five are 90 and 80.
        ([90, 80, 91, 92, 93, 94, 95, 80], False),
    ],
)
def test_validation_stopped_improving_when_it_is_worse_than_the_best_before_the_latest_five(
    figures: list[float], expected: bool
) -> None:
    assert stopped_improving(figures, 5) is expected


def test_the_mean_counts_every_update_the_same() -> None:
    weight = torch.nn.Parameter(torch.tensor([8.0, 8.0]))
    average = Average([weight])
    for count, value in enumerate((1.0, 2.0, 6.0), start=1):
        weight.data.fill_(value)
        average.update(count)
    with average.in_place():
        assert weight.tolist() == [3.0, 3.0]
    assert weight.tolist() == [6.0, 6.0]
    assert average.means[0].tolist() == [3.0, 3.0]


def test_there_is_nothing_to_put_in_place_before_the_first_update() -> None:
    weight = torch.nn.Parameter(torch.tensor([8.0]))
    with Average([weight]).in_place():
        assert weight.item() == 8.0


def test_updates_and_their_mean_are_those_of_torchs_asgd() -> None:
    """torch's mean leaves its first step out (its weight is still 1 at the second), so ours begins one later."""
    start, gradients = torch.randn(4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([ours], lr=0.3)
    asgd = torch.optim.ASGD([theirs], lr=0.3, t0=0, lambd=0.0)
    average = Average([ours])
    for step, gradient in enumerate(gradients):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        sgd.step()
        asgd.step()
        if step:
            average.update(step)
    torch.testing.assert_close(ours.data, theirs.data)
    torch.testing.assert_close(average.means[0], asgd.state[theirs]["ax"])


class Recorder:
    """An observer that keeps the weights after each update, and what validation is to say."""

    def __init__(self, run: Trainer) -> None:
        self.run = run
        self.weights: list[torch.Tensor] = []
        self.entries: list[dict[str, Any]] = []

    def started(self, position: Position, updates: int, epochs: int) -> None:
        self.updates = updates

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        self.weights.append(self.run.model.decoder.bias.detach().clone())

    def validated(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)


def run_with(
    data: Data, out: Path, optimizer: Optimizer, figures: list[float], monkeypatch: pytest.MonkeyPatch
) -> Recorder:
    """A run whose epochs are validated at the given figures."""
    settings = recipe(optimizer=optimizer, learning_rate=1, epochs=len(figures), patience=2)
    run = Trainer(config(data.vocabulary), settings, data, out, preset="none", seed=5)
    said = iter(figures)
    monkeypatch.setattr(run, "_validation_perplexity", lambda: next(said))
    recorder = Recorder(run)
    assert run.run(recorder)
    return recorder


def test_nt_asgd_begins_its_mean_after_the_epoch_that_did_not_improve_and_saves_the_mean(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = [50.0, 60, 61, 55, 40, 41]  # At the fourth, 55 > 50, the best before the latest two.
    found = run_with(data, tmp_path, Optimizer.NT_ASGD, figures, monkeypatch)
    per_epoch = len(found.weights) // 6
    assert [entry["averaged"] for entry in found.entries] == [0, 0, 0, 0, per_epoch, 2 * per_epoch]
    # The fifth epoch is the best: its checkpoint is the mean over its updates.
    expected = torch.stack(found.weights[4 * per_epoch : 5 * per_epoch]).mean(0)
    saved = load_checkpoint(tmp_path)[0].decoder.bias
    torch.testing.assert_close(saved.detach(), expected)
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["best_epoch"], len(record["curve"])) == (5, 6)


def test_the_record_holds_every_epoch_and_what_was_measured_of_the_best_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(optimizer=Optimizer.NT_ASGD, learning_rate=1, epochs=3)
    run = Trainer(config(data.vocabulary), settings, data, tmp_path, preset="none", seed=5)
    said = iter([50.0, 60, 61])
    monkeypatch.setattr(run, "_validation_perplexity", lambda: next(said))
    measured = [{"data": "x", "evaluation": "static"}]
    path = tmp_path / "training.json"
    lengths: list[int] = []

    class Measuring(Recorder):
        def validated(self, entry: dict[str, Any]) -> None:
            record = json.loads(path.read_text())
            lengths.append(len(record["curve"]))
            if entry["epoch"] == 1:
                path.write_text(json.dumps(record | {"evaluations": measured}))

    assert run.run(Measuring(run))
    assert lengths == [1, 2, 3]
    record = json.loads(path.read_text())
    assert (record["best_epoch"], record["evaluations"]) == (1, measured)


def test_finetuning_averages_from_its_first_update_and_ends_where_validation_stops_improving(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_with(data, tmp_path, Optimizer.ASGD, [50.0, 49, 49.5, 49.2, 60, 1], monkeypatch)
    per_epoch = len(found.weights) // 5
    # At the fifth, 60 > 49: there is no sixth.
    assert [entry["averaged"] for entry in found.entries] == [per_epoch * epoch for epoch in range(1, 6)]
    expected = torch.stack(found.weights[: 2 * per_epoch]).mean(0)
    torch.testing.assert_close(load_checkpoint(tmp_path)[0].decoder.bias.detach(), expected)
    assert json.loads((tmp_path / "training.json").read_text())["finished"]


@pytest.mark.parametrize("optimizer", [Optimizer.SGD, Optimizer.ADAMW])
def test_other_optimisers_never_average(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Optimizer
) -> None:
    found = run_with(data, tmp_path, optimizer, [50.0, 60, 61, 62, 63], monkeypatch)
    assert [entry["averaged"] for entry in found.entries] == [0] * 5
