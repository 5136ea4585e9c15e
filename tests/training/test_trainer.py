"""The training loop: it learns, it resumes exactly, and it leaves only usable files behind."""

from __future__ import annotations

import errno
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint
from model.dropout import Dropout
from model.errors import CorpusError, TrainingError
from tests.training.conftest import config, recipe
from training.data import Data
from training.evaluate import Evaluation, evaluate
from training.recipe import Optimizer, Recipe
from training.resume import Position
from training.trainer import Trainer


class Silent:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.entries: list[dict[str, Any]] = []

    def started(self, position: Position, segments: int, epochs: int) -> None:
        self.segments = segments

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        self.steps.append(position.step)

    def validated(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)


def trainer(
    data: Data, out: Path, settings: Recipe, *, preset: str = "none", seed: int = 5, half: bool = False
) -> Trainer:
    return Trainer(config(data.vocabulary), settings, data, out, preset=preset, seed=seed, half=half)


def stop_after(updates: int) -> Any:
    """A `should_stop` that becomes true after that many updates."""
    asked = itertools.count(1)
    return lambda: next(asked) >= updates


AWD: dict[str, Any] = {
    "optimizer": Optimizer.ASGD,
    "dropout": Dropout(word=0.1, input=0.2, hidden=0.2, output=0.2, weight=0.3, locked=True),
    "variable_bptt": True,
    "partial_shuffle": True,
    "activation": 2.0,
    "temporal": 1.0,
    "past_decode": 0.01,
}


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": Optimizer.SGD}, {"optimizer": Optimizer.ADAMW, "learning_rate": 0.01}, AWD],
    ids=["sgd", "adamw", "awd"],
)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_run_stopped_and_resumed_twice_equals_the_unbroken_run_bit_for_bit(
    data: Data, tmp_path: Path, changes: dict[str, Any], bfloat16: bool
) -> None:
    settings = recipe(bfloat16=bfloat16, **changes)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert trainer(data, unbroken, settings).run(Silent())

    assert not trainer(data, broken, settings).run(Silent(), stop_after(5))
    torch.manual_seed(99)  # whatever happened in between must not matter
    second = trainer(data, broken, settings)
    second.resume()
    seen = Silent()
    assert not second.run(seen, stop_after(14))
    assert seen.steps == list(range(6, 20))
    third = trainer(data, broken, settings)
    third.resume()
    assert third.run(Silent())

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (broken, unbroken))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    records = [json.loads((folder / "training.json").read_text()) for folder in (broken, unbroken)]
    curves = [
        [{key: point[key] for key in ("step", "train_perplexity", "valid_perplexity")} for point in record["curve"]]
        for record in records
    ]
    assert curves[0] == curves[1]
    assert records[0]["perplexity"] == records[1]["perplexity"]


@pytest.mark.parametrize(
    ("optimizer", "rate", "changes"),
    [
        (Optimizer.SGD, 10, {}),
        (Optimizer.ADAMW, 0.03, {}),
        (Optimizer.ADAMW, 0.03, {"mogrifier_rounds": 4, "softmaxes": 3}),
    ],
)
def test_training_learns_a_small_text_by_heart(
    data: Data, tmp_path: Path, optimizer: Optimizer, rate: float, changes: dict[str, Any]
) -> None:
    settings = recipe(optimizer=optimizer, learning_rate=rate, epochs=30, dropout=Dropout(), clip=1.0)
    architecture = config(data.vocabulary, embedding_size=16, hidden_size=32, **changes)
    run = Trainer(architecture, settings, data, tmp_path, preset="", seed=1)
    assert run.run(Silent())
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["perplexity"]["valid"] < 1.5
    assert record["curve"][0]["train_perplexity"] > 5


def test_the_checkpoint_is_the_epoch_with_the_best_validation(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perplexities = iter([30.0, 20.0, 25.0, 20.0, 20.0])
    monkeypatch.setattr(
        "training.trainer.evaluate",
        lambda *_, **__: Evaluation(tokens=1, negative_log_likelihood=math.log(next(perplexities))),
    )
    weights = []

    class Watching(Silent):
        def validated(self, entry: dict[str, Any]) -> None:
            weights.append((tmp_path / "model.safetensors").read_bytes())

    assert trainer(data, tmp_path, recipe(epochs=3)).run(Watching())
    assert weights[0] != weights[1] == weights[2] == (tmp_path / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "training.json").read_text())["best_epoch"] == 2


def test_the_record_says_what_was_trained_and_how(data: Data, tmp_path: Path) -> None:
    assert trainer(data, tmp_path, recipe()).run(Silent())
    model, vocabulary, record = load_checkpoint(tmp_path)
    assert record["recipe"] == recipe().model_dump(mode="json")
    assert record["seed"] == 5
    assert record["data"] == {"name": "small", "sha256": {"train": "0" * 64}}
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["tokens"]["train"] == len(data.train)
    assert [point["epoch"] for point in record["curve"]] == [1, 2]
    assert record["finished"]
    assert record["processes"] == 1
    assert "started_from" not in record
    assert record["peak_bytes"] > sum(4 * p.numel() for p in model.parameters())
    assert record["versions"]["torch"] == torch.__version__
    assert record["perplexity"]["test"] == evaluate(model, data.valid, vocabulary.eos_id).perplexity
    assert not (tmp_path / "resume.safetensors").exists()


def test_half_precision_checkpoints_are_measured_as_they_are_stored(data: Data, tmp_path: Path) -> None:
    assert trainer(data, tmp_path, recipe(), half=True).run(Silent())
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    model, vocabulary, record = load_checkpoint(tmp_path)
    assert record["perplexity"]["valid"] == evaluate(model, data.valid, vocabulary.eos_id).perplexity


def test_a_run_stopped_in_its_first_epoch_leaves_a_checkpoint(data: Data, tmp_path: Path) -> None:
    assert not trainer(data, tmp_path, recipe()).run(Silent(), stop_after(2))
    _, _, record = load_checkpoint(tmp_path)
    assert record["curve"] == []
    assert record["best_epoch"] is None
    assert not record["finished"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 6}, "seed was 5 and is now 6"),
        ({"settings": recipe(clip=0.5)}, r"recipe.clip was 0.25 and is now 0.5"),
        ({"preset": "other"}, 'preset was "none" and is now "other"'),
    ],
)
def test_resuming_with_other_settings_says_what_differs(
    data: Data, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    trainer(data, tmp_path, recipe()).run(Silent(), stop_after(2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    settings = changes.pop("settings", recipe())
    with pytest.raises(TrainingError, match=named):
        trainer(data, tmp_path, settings, **changes).resume()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_on_another_kind_of_device_says_what_differs(data: Data, tmp_path: Path) -> None:
    first = trainer(data, tmp_path, recipe())
    first.identity["device"] = "cuda"
    first.run(Silent(), stop_after(2))
    with pytest.raises(TrainingError, match='device was "cuda" and is now "cpu"'):
        trainer(data, tmp_path, recipe()).resume()


def test_resuming_with_other_data_says_which_split_differs(data: Data, tmp_path: Path) -> None:
    trainer(data, tmp_path, recipe()).run(Silent(), stop_after(2))
    data.sha256["train"] = "1" * 64
    with pytest.raises(TrainingError, match=r"data\.sha256\.train"):
        trainer(data, tmp_path, recipe()).resume()


def test_a_damaged_resume_file_is_named(data: Data, tmp_path: Path) -> None:
    trainer(data, tmp_path, recipe()).run(Silent(), stop_after(2))
    path = tmp_path / "resume.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrainingError, match=r"resume\.safetensors cannot be read"):
        trainer(data, tmp_path, recipe()).resume()


def test_there_is_nothing_to_resume_in_a_new_folder_or_after_the_end(data: Data, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        trainer(data, tmp_path / "new", recipe()).resume()
    assert trainer(data, tmp_path, recipe(epochs=1)).run(Silent())
    with pytest.raises(TrainingError, match="finished run"):
        trainer(data, tmp_path, recipe(epochs=1)).resume()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(data: Data, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, recipe())
    with torch.no_grad():
        run.model.embedding.weight[3] = torch.nan
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+ \(epoch 1\)"):
        run.run(Silent())


def break_the_loss(run: Trainer, monkeypatch: pytest.MonkeyPatch, step: int, loss: float) -> None:
    """Make the loss of one update another one."""
    update = run._update

    def broken(inputs: torch.Tensor, targets: torch.Tensor) -> float:
        found = update(inputs, targets)
        return loss if run.position.step + 1 == step else found

    monkeypatch.setattr(run, "_update", broken)


@pytest.mark.parametrize(
    ("times", "said"), [(5.1, r"has exploded to \d+\.\d"), (math.inf, "is inf"), (math.nan, "is nan")]
)
def test_a_loss_that_explodes_stops_the_run_with_its_step_and_leaves_the_last_good_checkpoint(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float, said: str
) -> None:
    run = trainer(data, tmp_path, recipe())
    step = run.epochs.updates[0] + 3
    break_the_loss(run, monkeypatch, step, times * math.log(len(data.vocabulary)))
    kept: dict[str, bytes] = {}

    class Keep(Silent):
        def stepped(self, position: Position, loss: float, tokens: int) -> None:
            if position.step == run.epochs.updates[0] + 1:
                kept.update({path.name: path.read_bytes() for path in tmp_path.iterdir()})

    with pytest.raises(
        TrainingError,
        match=rf"the loss {said} at step {step} \(epoch 2\); .*; the last good checkpoint is {tmp_path}$",
    ):
        run.run(Keep())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    _, _, record = load_checkpoint(tmp_path)
    assert record["best_epoch"] == 1
    again = trainer(data, tmp_path, recipe())
    again.resume()
    assert again.run(Silent())


def test_a_loss_just_below_what_counts_as_exploded_goes_on(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(data, tmp_path, recipe())
    break_the_loss(run, monkeypatch, 3, 4.9 * math.log(len(data.vocabulary)))
    assert run.run(Silent())


def test_a_run_that_explodes_in_its_first_epoch_claims_no_checkpoint(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(data, tmp_path, recipe())
    break_the_loss(run, monkeypatch, 3, 1e3)
    with pytest.raises(
        TrainingError, match=r"exploded to 1000\.0 at step 3 \(epoch 1\); .*; there is no checkpoint yet$"
    ):
        run.run(Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["resume.safetensors"]


@pytest.mark.parametrize("file", ["model.safetensors", "training.json", "resume.safetensors"])
def test_a_full_disk_stops_the_run_and_leaves_what_was_saved_before(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    trainer(data, tmp_path, recipe()).run(Silent(), stop_after(20))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    resumed = trainer(data, tmp_path, recipe())
    resumed.resume()
    with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
        resumed.run(Silent())
    assert (tmp_path / file).read_bytes() == before[file]
    assert {path.name for path in tmp_path.iterdir()} == before.keys()
    load_checkpoint(tmp_path)
    trainer(data, tmp_path, recipe()).resume()


@pytest.mark.parametrize("file", ["model.safetensors", "training.json"])
def test_a_run_cut_off_while_it_first_saves_can_be_resumed(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(TrainingError, match="cannot be written"):
            trainer(data, tmp_path, recipe()).run(Silent())
    again = trainer(data, tmp_path, recipe())
    again.resume()
    assert again.run(Silent())


def test_weights_that_stop_being_finite_after_the_last_update_are_never_saved(data: Data, tmp_path: Path) -> None:
    run = trainer(data, tmp_path, recipe(epochs=1))

    class Poison(Silent):
        def stepped(self, position: Position, loss: float, tokens: int) -> None:
            if position.segment == self.segments:
                with torch.no_grad():
                    run.model.decoder.bias[0] = torch.nan

    with pytest.raises(TrainingError, match="validation perplexity is nan after epoch 1"):
        run.run(Poison())
    saved = load_file(tmp_path / "resume.safetensors")
    assert all(torch.isfinite(tensor).all() for name, tensor in saved.items() if name.startswith("model."))


def test_an_out_folder_that_cannot_be_made_is_refused_before_any_training(data: Data, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seen = Silent()
    with pytest.raises(TrainingError, match="cannot be written"):
        trainer(data, tmp_path / "file", recipe()).run(seen)
    assert seen.steps == []


def test_a_text_too_short_for_the_batch_is_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="too few: they are read in 5000 rows"):
        trainer(data, tmp_path, recipe(batch_size=5000))
