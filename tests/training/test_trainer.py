"""The training loop: it learns, it resumes exactly, and its checkpoint and record are those of the best epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint
from model.dropout import Dropout
from model.errors import TrainingError
from model.language_model import LanguageModel
from tests.training.conftest import config, recipe
from tests.training.runs import Silent, stop_after, trainer
from training.data import Data
from training.evaluate import Evaluation, evaluate
from training.likelihood import mean_loss
from training.recipe import Optimizer
from training.trainer import Trainer

ADAM: dict[str, Any] = {"optimizer": Optimizer.ADAM, "learning_rate": 0.01, "weight_decay": 1e-5}
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
    [{"optimizer": Optimizer.SGD}, ADAM, {**ADAM, "optimizer": Optimizer.ADAMW}, AWD],
    ids=["sgd", "adam", "adamw", "awd"],
)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_run_stopped_and_resumed_twice_equals_the_unbroken_run_bit_for_bit(
    data: Data, tmp_path: Path, changes: dict[str, Any], bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.multiplies_bfloat16", lambda device: True)
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


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_products_are_in_bfloat16_where_the_recipe_asks_for_it_and_the_device_is_fast_in_it(
    data: Data, tmp_path: Path, asked: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_bf16": fast})
    seen: list[torch.dtype] = []

    def noticed(model: LanguageModel, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(hidden.dtype)
        return mean_loss(model, hidden, targets)

    monkeypatch.setattr("training.objective.mean_loss", noticed)
    run = trainer(data, tmp_path / "run", recipe(bfloat16=asked))
    run.run(Silent(), stop_after(1))
    expected = torch.bfloat16 if asked and fast else torch.float32
    assert seen == [expected]
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert f"torch.{record['hardware']['products']}" == str(expected)
    assert record["recipe"]["bfloat16"] is asked


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


def test_a_run_that_stores_halves_is_not_resumed_as_one_that_does_not(data: Data, tmp_path: Path) -> None:
    trainer(data, tmp_path, recipe(), half=True).run(Silent(), stop_after(2))
    with pytest.raises(TrainingError, match="half was true and is now null"):
        trainer(data, tmp_path, recipe()).resume()
    trainer(data, tmp_path, recipe(), half=True).resume()


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


def test_processes_save_what_resumes_when_the_first_does_whatever_their_own_clocks_say(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr("training.trainer.RESUME_SECONDS", math.inf)
    monkeypatch.setattr("training.trainer.save_resume", lambda *_: saved.append(1))
    # What this process measures is a perplexity; whether it is time to save, the first one says otherwise.
    monkeypatch.setattr("training.world.World.of_first", lambda _, value: value or 1.0)
    trainer(data, tmp_path, recipe(epochs=2)).run(Silent())
    assert len(saved) == 3
