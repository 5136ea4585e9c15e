"""What TensorBoard is given, read back as TensorBoard reads it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.checkpoint import read_record
from tests.training.conftest import config, recipe
from training import presets
from training.cli import main
from training.data import Data
from training.presets import Preset
from training.progress import Observers, TensorBoardObserver
from training.resume import Position
from training.trainer import Trainer


class Told:
    """An observer that keeps what it is told, by name."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def started(self, position: Position, updates: int, epochs: int) -> None:
        self.calls.append(("started", position.step, updates, epochs))

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        self.calls.append(("stepped", position.step, loss, tokens))

    def validated(self, entry: dict[str, Any]) -> None:
        self.calls.append(("validated", entry["epoch"]))


def curves(out: Path) -> dict[str, dict[int, float]]:
    """Value by step of every curve in a run's folder."""
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_losses_of_updates_and_the_perplexities_of_the_record(data: Data, tmp_path: Path) -> None:
    run = Trainer(config(data.vocabulary), recipe(), data, tmp_path, preset="none", seed=5)
    told, second = Told(), Told()
    with TensorBoardObserver(tmp_path, Console()) as tensorboard:
        assert run.run(Observers([told, tensorboard, second]))
    assert told.calls == second.calls
    found = curves(tmp_path)
    assert found.keys() == {
        "update/loss",
        "update/tokens_per_second",
        "epoch/train_perplexity",
        "epoch/valid_perplexity",
    }
    losses = {call[1]: call[2] for call in told.calls if call[0] == "stepped" and call[1] % 10 == 0}
    assert len(losses) > 2
    assert found["update/loss"] == pytest.approx(losses)
    assert found["update/tokens_per_second"].keys() == losses.keys()
    assert min(found["update/tokens_per_second"].values()) > 0
    curve = read_record(tmp_path)["curve"]
    assert len(curve) == 2
    for name in ("train_perplexity", "valid_perplexity"):
        assert found[f"epoch/{name}"] == pytest.approx({point["epoch"]: point[name] for point in curve})


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_run_outlives_its_logs_and_says_so_once(
    data: Data, tmp_path: Path, when: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Trainer(config(data.vocabulary), recipe(), data, tmp_path, preset="none", seed=5)
    if when == "before":
        (tmp_path / "tensorboard").write_text("in the way")
    with TensorBoardObserver(tmp_path, Console(soft_wrap=True)) as tensorboard:
        if when == "meanwhile":
            assert tensorboard._file is not None
            tensorboard._file.close()
            tensorboard._file = Path("/dev/full").open("wb")  # noqa: SIM115 - the observer closes it
        assert run.run(tensorboard)
    reason = "File exists" if when == "before" else "No space left on device"
    said = "training goes on without these logs. Mend that, and they go on where the run is stopped and resumed"
    written = capfd.readouterr()
    assert written.out == f"{tmp_path / 'tensorboard'} cannot be written: {reason}; {said}\n"
    assert written.err == ""
    assert read_record(tmp_path)["finished"]


def test_the_command_writes_curves_when_asked_and_a_resumed_run_goes_on_with_them(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset("tiny", "for tests", architecture, recipe(epochs=2)))
    for folder, options in (
        ("plain", []),
        ("out", ["--tensorboard", "--max-minutes", "0"]),
        ("out", ["--tensorboard", "--resume"]),
    ):
        command = ["train", "--data", str(corpus_folder), "--preset", "tiny", "--out", str(tmp_path / folder)]
        monkeypatch.setattr(sys, "argv", ["training", *command, *options])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    assert not (tmp_path / "plain" / "tensorboard").exists()
    found = curves(tmp_path / "out")
    assert list(found["epoch/valid_perplexity"]) == [1, 2]
    steps = list(found["update/loss"])
    assert steps == list(range(10, steps[-1] + 1, 10))
