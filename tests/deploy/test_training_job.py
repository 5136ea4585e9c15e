"""The Job that trains on several pods: its very commands, two processes of them, on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.app.serving import until
from tests.deploy.objects import TRAINING, Objects, container, plain_environment
from tests.deploy.processes import assert_two_have_finished, same_weights, small, write_text
from tests.source import ROOT
from tests.training.distributed import free_port

EPOCHS = 6
INDEX = "metadata.labels['batch.kubernetes.io/job-completion-index']"


def job() -> dict[str, Any]:
    [found] = Objects(TRAINING).of("Job").values()
    return found


def pod() -> dict[str, Any]:
    return Objects(TRAINING).pods()["train"]


def start(rank: int, port: int, volume: Path) -> subprocess.Popen[bytes]:
    """A pod of the Job, with its volume here and all pods on this machine. What it writes goes to a file for each."""
    here = {"train-0.train": "127.0.0.1", "29500": str(port)}

    def placed(word: str) -> str:
        return here.get(word, word.replace("/training/", f"{volume}/"))

    [indexed] = [entry["name"] for entry in container(pod())["env"] if "valueFrom" in entry]
    environment = {name: placed(value) for name, value in plain_environment(pod()).items()} | {indexed: str(rank)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (volume / f"{rank}.log").open("wb") as log:
        return subprocess.Popen(
            [*container(pod())["command"], *map(placed, container(pod())["args"]), *small(EPOCHS)],
            cwd=ROOT,
            env=os.environ | environment | {"PATH": path, "TERM": "dumb"},
            stdout=log,
            stderr=log,
        )


@contextmanager
def pods(volume: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """All pods of the Job, running."""
    port = free_port()
    running = [start(rank, port, volume) for rank in range(job()["spec"]["completions"])]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def ends(running: list[subprocess.Popen[bytes]], volume: Path) -> list[tuple[int, str]]:
    """Status of each, and what it wrote."""
    return [(process.wait(200), (volume / f"{rank}.log").read_text()) for rank, process in enumerate(running)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of pods that nothing happened to."""
    volume = tmp_path_factory.mktemp("unbroken")
    write_text(volume / "my-text.txt")
    with pods(volume) as running:
        first, second = ends(running, volume)
    assert first[0] == second[0] == 0, (first, second)
    assert "finished; the checkpoint is" in first[1]
    assert second[1] == "", "the first alone speaks of what they do together"
    return volume / "runs" / "mine"


@pytest.mark.slow
def test_two_pods_train_one_model(unbroken: Path) -> None:
    assert_two_have_finished(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_pods_of_which_one_is_evicted_or_killed_go_on_by_the_same_command_to_the_same_weights(
    number: signal.Signals, unbroken: Path, tmp_path: Path
) -> None:
    write_text(tmp_path / "my-text.txt")
    out = tmp_path / "runs" / "mine"
    with pods(tmp_path) as running:
        # After the first epoch.
        until(lambda: (out / "training.json").exists() or any(process.poll() is not None for process in running))
        running[1].send_signal(number)
        first, second = ends(running, tmp_path)
    if number is signal.SIGTERM:
        for status, said in (first, second):
            assert status == 2, said
            assert "error: interrupted; " in said
    else:
        assert second[0] == -signal.SIGKILL
        assert first[0] != 0
    assert (out / "resume.safetensors").exists()
    with pods(tmp_path) as running:
        again = ends(running, tmp_path)
    assert [status for status, _ in again] == [0, 0], again
    assert_two_have_finished(out)
    assert same_weights(out, unbroken)


def test_the_job_starts_as_many_pods_as_it_says_each_in_a_place_of_its_own() -> None:
    spec = job()["spec"]
    variables = plain_environment(pod())
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(variables["WORLD_SIZE"])
    [(name, reference)] = [
        (entry["name"], entry["valueFrom"]) for entry in container(pod())["env"] if "valueFrom" in entry
    ]
    assert (name, reference) == ("RANK", {"fieldRef": {"fieldPath": INDEX}})
    assert pod()["restartPolicy"] == "OnFailure"
    assert spec["podReplacementPolicy"] == "Failed"


def test_pods_find_the_first_by_the_name_that_the_service_gives_it() -> None:
    objects = Objects(TRAINING)
    [(name, service)] = objects.of("Service").items()
    # A pod's name is the Job's and its index, and the domain below it the headless Service's.
    assert pod()["subdomain"] == name
    assert plain_environment(pod())["MASTER_ADDR"] == f"{job()['metadata']['name']}-0.{name}"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    policy = objects.of("NetworkPolicy")["train"]["spec"]
    [among] = policy["ingress"]
    assert [objects.pods_of(source["podSelector"]) for source in among["from"]] == [{"train"}]
    assert "ports" not in among, "what they exchange goes by ports that they choose"
    assert among["from"] == policy["egress"][0]["to"]


def test_the_run_is_on_the_volume_and_has_the_processors_that_it_asks_for() -> None:
    found = container(pod())
    [volume] = [mount["mountPath"] for mount in found["volumeMounts"] if mount["name"] == "training"]
    data = found["args"][found["args"].index("--data") + 1]
    for path in (plain_environment(pod())["OUT"], data):
        assert Path(volume) in Path(path).parents
    [claim] = Objects(TRAINING).of("PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert found["args"][found["args"].index("--threads") + 1] == found["resources"]["requests"]["cpu"]


def test_the_image_of_training_holds_what_training_needs_and_no_root() -> None:
    text = (ROOT / "Dockerfile.training").read_text()
    assert "ARG BASE=python:3.11-slim\n" in text
    security = pod()["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in text
    assert "--constraint /tmp/dev.lock --editable '.[train]'" in text
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(line.startswith("torch") for line in extras["train"])
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line]
    assert {name for names in copied for name in names} <= sent
    assert {"model", "training", "requirements/dev.lock"} <= sent
    # What libraries write goes where the pod may write.
    [mounted] = [mount for mount in container(pod())["volumeMounts"] if mount["name"] == "tmp"]
    for name in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert f"{name}={mounted['mountPath']}/" in text
