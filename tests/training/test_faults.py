"""Training runs, when the disk fills up or Ctrl-C comes at any moment: what is left can go on, to the same weights."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from model.checkpoint import load_checkpoint, read_record
from model.errors import TrainingError
from tests.commands import exit_status
from tests.model.faults import Moments, contents, ctrl_c, full_disk, wait_for_no_disk
from tests.training.conftest import config, recipe
from training import presets
from training.cli import main
from training.data import Data
from training.presets import Preset
from training.progress import TerminalObserver
from training.resume import Position
from training.run_folder import is_occupied
from training.trainer import Trainer

Fault = Callable[[Path, int], AbstractContextManager[Moments]]

CHECKPOINT = {"config.json", "tokenizer.json", "model.safetensors", "training.json"}
RESUME = "resume.safetensors"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_no_disk(monkeypatch)


class Blind:
    """An observer that looks at nothing."""

    def started(self, position: Position, segments: int, epochs: int) -> None: ...

    def stepped(self, position: Position, loss: float, tokens: int) -> None: ...

    def validated(self, entry: dict[str, Any]) -> None: ...


def trainer(data: Data, out: Path) -> Trainer:
    smallest = config(data.vocabulary, layers=1, hidden_size=8)
    return Trainer(smallest, recipe(bptt=40), data, out, preset="none", seed=5)


def weights(folder: Path) -> dict[str, bytes]:
    """Every weight of a checkpoint, to the bit."""
    return {name: array.tobytes() for name, array in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize(
    ("fault", "error"), [(full_disk, TrainingError), (ctrl_c, KeyboardInterrupt)], ids=["full-disk", "ctrl-c"]
)
def test_a_run_that_was_stopped_while_it_saved_goes_on_to_the_weights_of_an_unbroken_run(
    data: Data, tmp_path: Path, fault: Fault, error: type[BaseException]
) -> None:
    short = replace(data, train=data.train[:100], valid=data.valid[:20], test=None)
    assert trainer(short, tmp_path / "unbroken").run(Blind())
    expected = weights(tmp_path / "unbroken")
    for moment in itertools.count():
        out = tmp_path / str(moment)
        first = trainer(short, out)
        said = ""
        with fault(out, moment) as moments:
            try:
                first.run(Blind())
            except error as stop:
                said = str(stop)
        if not moments.struck:
            break
        found = set(contents(out)) if out.exists() else set()
        remedy = "--resume goes on" if RESUME in found else "train again"
        assert (f"cannot be written: No space left on device; mend that, and {remedy}" in said) == (fault is full_disk)
        assert found <= CHECKPOINT | {RESUME}, moments.struck
        if "training.json" in found:
            load_checkpoint(out)
        again = trainer(short, out)
        if "training.json" in found and read_record(out)["finished"]:
            assert weights(out) == expected, moments.struck
            continue
        if RESUME in found:
            again.resume()
        else:
            # Nothing was saved yet, and what is there is not in a new run's way.
            assert not is_occupied(out), moments.struck
        assert again.run(Blind())
        assert set(contents(out)) == CHECKPOINT
        assert weights(out) == expected, moments.struck
    assert moment > 40
    assert weights(tmp_path / str(moment)) == expected


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of text small enough to be trained on many times."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, repeats in (("train", 10), ("valid", 2), ("test", 2)):
        (folder / f"{split}.txt").write_text("the cat sat on the mat and looked at the dog\n" * repeats)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training` with these arguments; what escapes it escapes this too."""
    return exit_status(monkeypatch, main, *arguments)


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command which failed at once writes."""
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.strip().splitlines()
    return line


def train(corpus: Path, out: Path) -> list[object]:
    return ["train", "--data", corpus, "--preset", "tiny", "--out", out, "--threads", "1"]


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of a few updates."""
    architecture = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}
    tiny = Preset("tiny", "for tests", architecture, recipe(epochs=2, bptt=10))
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny)


def test_ctrl_c_at_any_update_is_one_line_and_resume_ends_with_the_same_weights(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *train(corpus, tmp_path / "unbroken")) == 0
    expected = weights(tmp_path / "unbroken")
    stepped = TerminalObserver.stepped
    steps: list[int] = []
    stop_at = 0

    def press(observer: TerminalObserver, position: Position, loss: float, tokens: int) -> None:
        stepped(observer, position, loss, tokens)
        steps.append(position.step)
        if steps == list(range(1, stop_at + 1)):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TerminalObserver, "stepped", press)
    for stop_at in itertools.count(1):
        out = tmp_path / str(stop_at)
        steps.clear()
        capsys.readouterr()
        status = run(monkeypatch, *train(corpus, out))
        if status == 0:
            break
        assert status == 2
        assert f"error: interrupted; {out} holds everything so far, and --resume goes on" in capsys.readouterr().err
        assert set(contents(out)) == CHECKPOINT | {RESUME}
        load_checkpoint(out)
        steps.clear()
        assert run(monkeypatch, *train(corpus, out), "--resume") == 0
        assert steps[0] == stop_at + 1
        assert weights(out) == expected, stop_at
    # Ctrl-C at the last update comes too late.
    assert steps == list(range(1, stop_at + 1))
    assert stop_at > 3
    assert weights(out) == expected


def test_a_run_stopped_in_its_first_epoch_says_that_its_checkpoint_is_not_validated(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, *train(corpus, out), "--max-minutes", 0) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"time is up, --resume goes on; {out} holds weights that no validation has seen"
    assert run(monkeypatch, *train(corpus, out), "--resume") == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"finished; the checkpoint is {out}"


def press_ctrl_c(*_: object, **__: object) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("place", ["load_corpus", "Trainer"])
def test_ctrl_c_before_the_first_update_is_one_line_and_leaves_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    monkeypatch.setattr(f"training.cli.{place}", press_ctrl_c)
    assert run(monkeypatch, *train(corpus, tmp_path / "out")) == 2
    assert "interrupted" in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_in_an_evaluation_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *train(corpus, tmp_path / "out"), "--epochs", 1) == 0
    capsys.readouterr()
    monkeypatch.setattr("training.evaluate_command.evaluate", press_ctrl_c)
    assert run(monkeypatch, "evaluate", "--checkpoint", tmp_path / "out", "--data", corpus) == 2
    # A progress bar that ends leaves its line.
    assert "interrupted" in only_line(capsys)
