"""What stops a training run: losses that are none, disks that are full, texts that are too short; files stay usable."""

from __future__ import annotations

import errno
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint
from model.errors import CorpusError, TrainingError
from tests.training.conftest import recipe
from tests.training.runs import Silent, stop_after, trainer
from training.data import Data
from training.evaluate import Evaluation
from training.resume import Position
from training.trainer import Trainer
from training.world import World


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


def test_a_checkpoint_that_was_never_validated_is_not_called_good(data: Data, tmp_path: Path) -> None:
    wild = recipe(learning_rate=1e30, clip=1e30)
    assert not trainer(data, tmp_path, wild).run(Silent(), stop_after(1))
    again = trainer(data, tmp_path, wild)
    again.resume()
    with pytest.raises(TrainingError, match=rf"at step 2 .*; {tmp_path} holds weights that no validation has seen$"):
        again.run(Silent())


def test_a_validation_that_explodes_stops_the_run_and_is_never_saved(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exploded = Evaluation(tokens=1, negative_log_likelihood=5.1 * math.log(len(data.vocabulary)))
    monkeypatch.setattr("training.trainer.evaluate", lambda *_, **__: exploded)
    with pytest.raises(
        TrainingError, match=r"validation perplexity is 1\.\d+e\+07 after epoch 1; .* no checkpoint yet$"
    ):
        trainer(data, tmp_path, recipe()).run(Silent())
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
    monkeypatch.setattr("training.trainer.RESUME_SECONDS", 0.0)
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


def killed_after(epochs: int) -> Callable[[], bool]:
    """What is asked after each update, and never answers once so many epochs of 19 updates are over."""
    updates = itertools.count(1)

    def asked() -> bool:
        if next(updates) > 19 * epochs:
            raise KeyboardInterrupt
        return False

    return asked


def test_a_killed_run_that_reads_epochs_again_leaves_the_better_checkpoint_and_its_record_alone(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perplexities = iter([30.0, 25.0, 10.0, 9.0, 12.0, 9.0, 9.0])
    monkeypatch.setattr(
        "training.trainer.evaluate",
        lambda *_, **__: Evaluation(tokens=1, negative_log_likelihood=math.log(next(perplexities))),
    )
    settings = recipe(epochs=5)
    first = trainer(data, tmp_path, settings)
    assert first.epochs.updates == [19] * 5
    with pytest.raises(KeyboardInterrupt):
        first.run(Silent(), killed_after(4))
    best = {name: (tmp_path / name).read_bytes() for name in ("model.safetensors", "training.json")}
    assert [point["valid_perplexity"] for point in json.loads(best["training.json"])["curve"]] == pytest.approx(
        [30, 25, 10, 9]
    )

    for stop in (3, 20, 15):  # in the first epoch, in the second, and at its end
        again = trainer(data, tmp_path, settings)
        again.resume()
        assert not again.run(Silent(), stop_after(stop))
        assert {name: (tmp_path / name).read_bytes() for name in best} == best
    last = trainer(data, tmp_path, settings)
    last.resume()
    seen = Silent()
    assert last.run(seen)
    assert [entry["valid_perplexity"] for entry in seen.entries] == pytest.approx([10, 9, 12])
    record = json.loads((tmp_path / "training.json").read_text())
    assert [point["valid_perplexity"] for point in record["curve"]] == pytest.approx([30, 25, 10, 9, 12])
    assert record["best_epoch"] == 4
    assert (tmp_path / "model.safetensors").read_bytes() == best["model.safetensors"]


def test_what_a_killed_process_left_half_written_goes_when_its_run_goes_on_and_nothing_else_does(
    data: Data, tmp_path: Path
) -> None:
    ours = [tmp_path / f".{name}.0123abcd.partial" for name in ("model.safetensors", "resume.safetensors")]
    others = [
        tmp_path / ".model.safetensors.partial",
        tmp_path / ".notes.txt.0123abcd.partial",
        tmp_path / "model.safetensors.0123abcd.partial",
        tmp_path / "sub" / ours[0].name,
    ]
    for path in (*ours, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    second = trainer(data, tmp_path, recipe())
    second.world = World(rank=1)
    second.run(Silent(), stop_after(1))
    assert all(path.exists() for path in (*ours, *others))
    assert not trainer(data, tmp_path, recipe()).run(Silent(), stop_after(1))
    assert not any(path.exists() for path in ours)
    ours[0].write_bytes(b"half")
    again = trainer(data, tmp_path, recipe())
    again.resume()
    assert again.run(Silent())
    assert not ours[0].exists()
    assert all(path.exists() for path in others)
