"""Runs that start from the weights of an earlier one: what comes along, what is written down, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint, pack_checkpoint, read_record, weights_sha256
from model.dropout import Dropout
from model.errors import TrainingError
from tests.commands import exit_status
from tests.training.conftest import config, recipe
from training import presets
from training.cli import main
from training.data import Data
from training.evaluate import evaluate
from training.presets import Preset
from training.recipe import Optimizer, learning_rate
from training.resume import Position
from training.run_folder import checkpoint_in_words, last_good
from training.trainer import Trainer
from training.warm_start import WarmStart, warm_start

ARCHITECTURE = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of few updates, and one that finetunes it."""
    tiny = Preset("tiny", "for tests", ARCHITECTURE, recipe())
    finetuned = Preset("tiny-finetuned", "for tests", ARCHITECTURE, recipe(learning_rate=0.5), finetunes="tiny")
    for preset in (tiny, finetuned):
        monkeypatch.setitem(presets.PRESETS, preset.name, preset)


class Watch:
    """An observer that keeps losses, rates and epochs."""

    def __init__(self, run: Trainer) -> None:
        self.trainer = run
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.epochs: list[int] = []
        self.began = Position()

    def started(self, position: Position, updates: int, epochs: int) -> None:
        self.began = replace(position, curve=[*position.curve])

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        self.losses.append(loss)
        self.rates += [group["lr"] for group in self.trainer.parts.optimizer.param_groups]

    def validated(self, entry: dict[str, Any]) -> None:
        self.epochs.append(entry["epoch"])


STILL = recipe(dropout=Dropout())


def trainer(data: Data, out: Path, start: WarmStart | None = None, **changes: Any) -> Trainer:
    settings = STILL.model_copy(update=changes)
    return Trainer(config(data.vocabulary), settings, data, out, preset="none", seed=5, start=start)


def finished(data: Data, out: Path, start: WarmStart | None = None, **changes: Any) -> Watch:
    run = trainer(data, out, start, **changes)
    watch = Watch(run)
    assert run.run(watch)
    return watch


def test_the_first_update_is_made_from_the_weights_of_the_checkpoint(data: Data, tmp_path: Path) -> None:
    finished(data, tmp_path / "first")
    start = warm_start(tmp_path / "first", config(data.vocabulary), data.vocabulary)
    run = trainer(data, tmp_path / "second", start)
    assert weights(run) == weights(tmp_path / "first")
    watch = Watch(run)
    run.run(watch, lambda: True)

    model, _, _ = load_checkpoint(tmp_path / "first")
    inputs, targets = next(run.epochs.batches(0))
    with torch.no_grad():
        hidden, _ = model(inputs, model.initial_state(len(inputs)))
        likely = model.log_probabilities(hidden).gather(2, targets[:, :, None])
    assert watch.losses == [pytest.approx(-likely.mean().item(), rel=1e-5)]


def weights(of: Trainer | Path) -> dict[str, bytes]:
    tensors = load_file(of / "model.safetensors") if isinstance(of, Path) else of.model.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_the_record_says_where_a_run_and_what_it_came_from_started(data: Data, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    finished(data, first)
    finished(data, second, warm_start(first, config(data.vocabulary), data.vocabulary))
    finished(data, third, warm_start(second, config(data.vocabulary), data.vocabulary, epoch=1))
    assert "started_from" not in read_record(first)
    of_first = {
        "sha256": weights_sha256(first),
        "preset": "none",
        "seed": 5,
        "best_epoch": read_record(first)["best_epoch"],
        "epoch": 0,
    }
    assert read_record(second)["started_from"] == of_first
    assert read_record(third)["started_from"] == {
        "sha256": weights_sha256(second),
        "preset": "none",
        "seed": 5,
        "best_epoch": read_record(second)["best_epoch"],
        "epoch": 1,
        "started_from": of_first,
    }


def test_a_run_keeps_what_it_started_from_until_an_epoch_is_better(data: Data, tmp_path: Path) -> None:
    finished(data, tmp_path / "first", epochs=12, optimizer=Optimizer.ADAMW, learning_rate=0.02)
    start = warm_start(tmp_path / "first", config(data.vocabulary), data.vocabulary)
    model, vocabulary, _ = load_checkpoint(tmp_path / "first")
    figure = evaluate(model, data.valid, vocabulary.eos_id).perplexity

    worse = finished(data, tmp_path / "worse", start, learning_rate=60)
    record = read_record(tmp_path / "worse")
    assert worse.epochs == [1, 2]
    assert min(point["valid_perplexity"] for point in record["curve"]) > 1.1 * figure
    assert record["best_epoch"] is None
    assert record["start_perplexity"] == pytest.approx(figure)
    assert record["perplexity"]["valid"] == pytest.approx(figure)
    assert weights(tmp_path / "worse") == weights(tmp_path / "first")
    assert checkpoint_in_words(tmp_path / "worse").endswith("the weights it started from: no epoch was better")

    finished(data, tmp_path / "better", start, learning_rate=1)
    record = read_record(tmp_path / "better")
    assert record["perplexity"]["valid"] < record["start_perplexity"] == pytest.approx(figure)
    assert record["best_epoch"] == 2


def test_a_run_stopped_in_its_first_epoch_still_has_what_it_started_from(data: Data, tmp_path: Path) -> None:
    finished(data, tmp_path / "first")
    start = warm_start(tmp_path / "first", config(data.vocabulary), data.vocabulary)
    run = trainer(data, tmp_path / "second", start)
    assert not run.run(Watch(run), lambda: True)
    assert weights(tmp_path / "second") == weights(tmp_path / "first") != weights(run)
    assert last_good(tmp_path / "second") == f"the last good checkpoint is {tmp_path / 'second'}"
    again = trainer(data, tmp_path / "second", start)
    again.resume()
    assert again.position.start_perplexity is not None
    assert again.run(Watch(again))


@pytest.mark.parametrize("optimizer", [Optimizer.SGD, Optimizer.ADAMW])
def test_epochs_that_are_done_are_left_out_of_the_schedule(data: Data, tmp_path: Path, optimizer: Optimizer) -> None:
    finished(data, tmp_path / "first")
    settings = {"epochs": 4, "optimizer": optimizer, "learning_rate": 0.01}
    start = warm_start(tmp_path / "first", config(data.vocabulary), data.vocabulary, epoch=3)
    watch = finished(data, tmp_path / "second", start, **settings)
    a_epoch = len(watch.rates)
    assert (watch.began.epoch, watch.began.step, watch.began.curve) == (3, 3 * a_epoch, [])
    expected = [
        learning_rate(STILL.model_copy(update=settings), step, 4 * a_epoch) for step in range(3 * a_epoch, 4 * a_epoch)
    ]
    assert watch.rates == expected
    assert watch.epochs == [4]
    assert [point["step"] for point in read_record(tmp_path / "second")["curve"]] == [4 * a_epoch]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 32}, "has hidden_size 16, this run 32"),
        ({"subsampling": "max"}, "has subsampling average, this run max"),
        ({"residual": False}, "has residual True, this run False"),
    ],
)
def test_another_architecture_is_refused_by_what_differs(
    data: Data, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    finished(data, tmp_path, epochs=1)
    with pytest.raises(TrainingError, match=named):
        warm_start(tmp_path, config(data.vocabulary, **changes), data.vocabulary)


def test_a_start_that_was_stopped_is_resumed_from_the_same_weights_only(data: Data, tmp_path: Path) -> None:
    first, other, out = (tmp_path / name for name in ("first", "other", "out"))
    finished(data, first)
    finished(data, other, epochs=1)
    start, wrong = (warm_start(folder, config(data.vocabulary), data.vocabulary) for folder in (first, other))
    run = trainer(data, out, start)
    assert not run.run(Watch(run), lambda: True)
    with pytest.raises(TrainingError, match=r"holds another run: started_from\.(best_epoch|sha256) was"):
        trainer(data, out, wrong).resume()
    with pytest.raises(TrainingError, match=r"holds another run: started_from was .* and is now null"):
        trainer(data, out).resume()
    again = trainer(data, out, start)
    again.resume()
    assert again.run(Watch(again))
    finished(data, tmp_path / "unbroken", start)
    assert weights(out) == weights(tmp_path / "unbroken")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training` with these arguments."""
    return exit_status(monkeypatch, main, *arguments)


@pytest.fixture
def first(corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the preset `tiny`."""
    out = tmp_path / "first"
    assert run(monkeypatch, "train", "--data", corpus_folder, "--preset", "tiny", "--out", out, "--epochs", 1) == 0
    return out


def test_a_preset_finetunes_a_checkpoint_or_its_pack(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Path
) -> None:
    assert run(monkeypatch, "pack", "--checkpoint", first, "--out", tmp_path / "pack") == 0
    tune = ["train", "--data", corpus_folder, "--preset", "tiny-finetuned"]
    for name in ("first", "pack"):
        assert run(monkeypatch, *tune, "--from", tmp_path / name, "--out", tmp_path / f"{name}-tuned") == 0
        record = read_record(tmp_path / f"{name}-tuned")
        assert record["started_from"]["sha256"] == weights_sha256(tmp_path / name)
        assert record["started_from"]["preset"] == "tiny"
    # What is in the pack are the half-precision weights, no more and no less.
    assert run(monkeypatch, *tune, "--from", first, "--out", tmp_path / "half", "--max-minutes", 0) == 0
    _, vocabulary, record = load_checkpoint(first)
    known = load_checkpoint(first)[0].config
    packed, whole = (warm_start(tmp_path / name, known, vocabulary).weights for name in ("pack", "first"))
    assert packed.keys() == whole.keys()
    assert all(torch.equal(packed[name], whole[name].half().float()) for name in whole)
    assert record == load_checkpoint(tmp_path / "pack")[2]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "tiny-finetuned"], "tiny-finetuned finetunes a checkpoint of tiny; give it by --from"),
        (["--preset", "tiny", "--from-epoch", "1"], "--from-epoch belongs to --from"),
        (["--preset", "tiny", "--from", "FIRST", "--from-epoch", "2"], "is less than the 2 epochs of all"),
        (["--preset", "tiny", "--from", "nowhere"], "nowhere is not a folder"),
        (["--preset", "tiny", "--from", "FIRST", "--max-vocab", "9"], "knows other words than --data"),
        (["--preset", "tiny", "--from", "FIRST", "--set", "model.layers=3"], "has layers 2, this run 3"),
        (["--preset", "tiny", "--set", "model.groups=3"], "groups=3"),
        (["--preset", "tiny", "--set", "recipe.width=3"], "recipe.width"),
    ],
)
def test_what_cannot_be_started_from_is_one_line(
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: Path,
    arguments: list[str],
    said: str,
) -> None:
    capsys.readouterr()
    given = [str(first) if argument == "FIRST" else argument for argument in arguments]
    assert run(monkeypatch, "train", "--data", corpus_folder, "--out", tmp_path / "out", *given) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint", "nowhere", "--out", "OUT"], "nowhere is not a folder"),
        (["--checkpoint", "FIRST", "--out", "FIRST"], "exists; give another --out folder"),
        (
            ["--checkpoint", "FIRST", "--out", "FIRST/config.json/under"],
            "cannot be written: File exists; mend that and pack again",
        ),
    ],
)
def test_what_cannot_be_packed_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: Path,
    arguments: list[str],
    said: str,
) -> None:
    capsys.readouterr()
    given = [argument.replace("FIRST", str(first)).replace("OUT", str(tmp_path / "out")) for argument in arguments]
    assert run(monkeypatch, "pack", *given) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert {path.name for path in tmp_path.iterdir()} == {"first"}


def test_packing_says_how_many_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: Path
) -> None:
    capsys.readouterr()
    assert run(monkeypatch, "pack", "--checkpoint", first, "--out", tmp_path / "pack") == 0
    assert last_line(capsys) == f"{tmp_path / 'pack'} holds the weights in 1 files"
    assert pack_checkpoint(first, tmp_path / "again", 15 * 2**20) == 1
