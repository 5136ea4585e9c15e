"""Several processes training one model: their losses are one process's, and what they stop they go on with exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import read_record
from model.errors import ConfigurationError
from tests.training.distributed import together
from training.world import Device, World, joined

ROOT = Path(__file__).parents[2]
SMALL = {
    "model.embedding_size": 8,
    "model.hidden_size": 16,
    "recipe.batch_size": 4,
    "recipe.bptt": 10,
    "recipe.bfloat16": "false",
    "recipe.learning_rate": 5,
    "recipe.epochs": 3,
}
STILL = {f"recipe.dropout.{place}": 0 for place in ("input", "hidden", "output")}
CURVE = ("epoch", "step", "train_perplexity", "valid_perplexity", "averaged")


def train(corpus: Path, out: Path, settings: dict[str, Any], *more: object) -> list[object]:
    changes = [word for name, value in (SMALL | settings).items() for word in ("--set", f"{name}={value}")]
    return ["train", "--data", corpus, "--out", out, "--device", "cpu", *changes, *more]


def run(processes: int, corpus: Path, out: Path, settings: dict[str, Any], *more: object) -> list[str]:
    """Train, successfully; what each process wrote."""
    log = out.parent / f"{out.name}-log{len(list(out.parent.iterdir()))}"
    results = together(processes, log, *train(corpus, out, settings, *more))
    assert [status for status, _ in results] == [0] * processes, results
    return [text for _, text in results]


def curve(out: Path) -> list[dict[str, Any]]:
    return [{name: point[name] for name in CURVE} for point in read_record(out)["curve"]]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"recipe.optimizer": "sgd"},
        {"recipe.optimizer": "asgd", "recipe.patience": 2},
        {"recipe.variable_bptt": "true", "recipe.partial_shuffle": "true"},
        {"recipe.activation": 2, "recipe.temporal": 1, "recipe.weight_decay": 1e-4, "recipe.optimizer": "adamw"}
        | {"recipe.learning_rate": 0.01},
    ],
    ids=["sgd", "asgd", "varied", "regularised"],
)
def test_two_processes_have_the_losses_of_one(corpus_folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    for processes in (1, 2):
        run(processes, corpus_folder, tmp_path / str(processes), STILL | settings)
    one, two = curve(tmp_path / "1"), curve(tmp_path / "2")
    assert len(two) == len(one) > 1
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, rel=1e-5)
    assert read_record(tmp_path / "2")["processes"] == 2
    assert read_record(tmp_path / "1")["processes"] == 1
    assert bool(two[-1]["averaged"]) == (settings.get("recipe.optimizer") == "asgd")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"recipe.variable_bptt": "true", "recipe.partial_shuffle": "true"}])
def test_two_processes_stopped_and_resumed_equal_the_unbroken_two_bit_for_bit(
    corpus_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    # The mean is there from the first update on.
    settings = settings | {"recipe.optimizer": "asgd", "recipe.dropout.weight": 0.3, "recipe.epochs": 2}
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run(2, corpus_folder, unbroken, settings)
    said = run(2, corpus_folder, broken, settings, "--max-minutes", 0)
    assert "time is up, --resume goes on" in said[0]
    assert read_record(broken)["curve"] == []
    run(2, corpus_folder, broken, settings, "--resume", "--max-minutes", 0)
    said = run(2, corpus_folder, broken, settings, "--resume")
    assert "finished; the checkpoint is" in said[0]
    assert curve(broken) == curve(unbroken)
    assert len(curve(unbroken)) == 2
    assert same_weights(broken, unbroken)
    assert read_record(broken)["perplexity"] == read_record(unbroken)["perplexity"]


def test_processes_drop_what_they_drop_by_themselves(corpus_folder: Path, tmp_path: Path) -> None:
    # With one mask for both, two equal halves of a batch would train as one of them.
    for processes in (1, 2):
        run(processes, corpus_folder, tmp_path / str(processes), {"recipe.epochs": 1})
    one, two = (curve(tmp_path / name)[0]["train_perplexity"] for name in "12")
    assert one != pytest.approx(two, rel=1e-5)


def test_resuming_with_another_number_of_processes_says_what_differs(corpus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(2, corpus_folder, out, {}, "--max-minutes", 0)
    [(status, error)] = together(1, tmp_path / "log", *train(corpus_folder, out, {}, "--resume"))
    assert status == 2
    assert error == f"error: {out} holds another run: processes was 2 and is now 1; use another --out folder\n"


def test_what_is_wrong_with_what_all_processes_were_given_is_said_by_the_first_alone(
    corpus_folder: Path, tmp_path: Path
) -> None:
    results = together(2, tmp_path / "log", *train(corpus_folder, tmp_path / "out", {"recipe.batch_size": 3}))
    assert results == [(2, "error: a batch of 3 rows is not divisible by 2 processes; change its size\n"), (2, "")]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_torchrun_starts_processes_of_which_the_first_alone_writes_and_speaks(
    corpus_folder: Path, tmp_path: Path
) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Each process writes to a file of its own, so that what the second says is not taken for the first's.
    logs = ["--redirects", "3", "--log-dir", tmp_path / "logs"]
    out = tmp_path / "out"
    arguments = [*torchrun, *logs, "-m", "training", *train(corpus_folder, out, {}, "--tensorboard")]
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    written = {f"{path.parent.name} {path.stem}": path.read_text() for path in (tmp_path / "logs").rglob("*.log")}
    assert written.keys() == {"0 stdout", "0 stderr", "1 stdout", "1 stderr"}
    assert [name for name, text in written.items() if text] == ["0 stderr"]
    assert "finished; the checkpoint is" in written["0 stderr"]
    assert "Warning" not in written["0 stderr"]
    assert {path.name for path in out.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "training.json", "tensorboard"
    }  # fmt: skip
    assert len(list((out / "tensorboard").iterdir())) == 1
    forked = tmp_path / "forked"
    run(2, corpus_folder, forked, {})
    assert same_weights(out, forked)


def test_a_process_alone_exchanges_nothing() -> None:
    world = World()
    tensor = torch.arange(6).view(3, 2)
    assert torch.equal(world.share(tensor), tensor)
    assert world.mean(3.5) == world.of_first(3.5) == 3.5
    assert world.gather({"state": tensor}) == {"0.state": tensor}
    module = torch.nn.Linear(2, 2)
    assert world.together(module) is module
    assert world.leads


def test_rows_are_shared_out_in_consecutive_parts() -> None:
    rows = torch.arange(6).view(6, 1)
    parts = [World(rank=rank, size=3).share(rows).flatten().tolist() for rank in range(3)]
    assert parts == [[0, 1], [2, 3], [4, 5]]


def test_a_device_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="finds no CUDA device"), joined(Device.CUDA):
        pass
    with joined() as world:
        assert world == World(torch.device("cpu"))


@pytest.mark.parametrize("local", ["0", "2"])
def test_more_processes_than_gpus_are_refused_in_each_of_them(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("RANK", local), ("LOCAL_RANK", local), ("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigurationError, match="3 processes here have 2 GPUs; start 2, by --nproc-per-node 2"),
        joined(),
    ):
        pass
