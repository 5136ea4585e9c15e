"""The launcher for Ray: two processes, on a cluster of this machine, by the command that the page shows."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.on_ray.nodes import need_ray
from tests.deploy.objects import TRAINING, Objects, container
from tests.deploy.processes import assert_two_have_finished, small, write_text
from tests.source import ROOT

LAUNCHER = ROOT / "deploy" / "ray" / "train.py"


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher on a cluster of its own of two processors, whatever the machine has."""
    # Ray keeps a token in HOME, and else takes a cluster that it finds on the machine.
    own = {"HOME": str(folder), "RAY_ADDRESS": "local", "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(LAUNCHER), "--processes", "2", "--", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_processes_are_told_what_pods_of_kubernetes_are_told() -> None:
    first, second = runpy.run_path(str(LAUNCHER))["environments"]("10.0.0.1", 1234, 2)
    shared = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    assert (first, second) == (shared | {"RANK": "0"}, shared | {"RANK": "1"})
    told = {entry["name"] for entry in container(Objects(TRAINING).pods()["train"])["env"]}
    assert told == first.keys() | {"OUT"}


@pytest.mark.parametrize("option", ["--processes", "--cpus"])
@pytest.mark.parametrize("number", ["0", "-1"])
def test_fewer_than_one_of_anything_is_refused_in_words(option: str, number: str) -> None:
    command = [sys.executable, str(LAUNCHER), "--processes", "2", f"{option}={number}", "--", "--data", "ptb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"argument {option}: must be at least 1, not {number}")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_of_a_cluster_train_one_model(tmp_path: Path) -> None:
    need_ray()
    text, out = write_text(tmp_path / "my-text.txt"), tmp_path / "out"
    done = launch(tmp_path, "--data", str(text), "--out", str(out), *small(1))
    assert done.returncode == 0, done.stderr
    assert "finished; the checkpoint is" in done.stdout + done.stderr
    assert_two_have_finished(out)


@pytest.mark.slow
def test_the_launcher_ends_as_the_processes_do(tmp_path: Path) -> None:
    need_ray()
    text, out = write_text(tmp_path / "my-text.txt"), tmp_path / "out"
    arguments = ["--data", str(text), "--out", str(out), *small(1), "--set", "recipe.batch_size=3"]
    done = launch(tmp_path, *arguments)
    assert done.returncode == 2
    assert "a batch of 3 rows is not divisible by 2 processes" in done.stdout + done.stderr
    assert not out.exists()
