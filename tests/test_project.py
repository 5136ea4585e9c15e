"""The files around the code: locks, Makefile, and what goes into the image."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.main import VERSION
from app.server import GRACE_SECONDS
from app.settings import Settings
from tests.source import ROOT, modules
from tests.test_layering import MAY_IMPORT

EXTRAS = {"cpu": ["cpu", "traces"], "dev": ["cpu", "traces", "train", "ray", "dev"], "gpu": ["gpu", "traces"]}
"""Extras that each lock file holds besides the core dependencies."""

IMAGES = {"Dockerfile": "cpu", "Dockerfile.gpu": "gpu"}
"""Lock file of each image."""

LOCKS = [*EXTRAS, "build"]

INSTALLING = [
    *IMAGES,
    "Dockerfile.training",
    "Makefile",
    "docker-compose.yml",
    "pyproject.toml",
    *(f"requirements/{lock}.lock" for lock in LOCKS),
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    """The table of that name in `pyproject.toml`."""
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def required(lock: str) -> list[Requirement]:
    """What `pyproject.toml` asks of a lock."""
    if lock == "build":
        return [Requirement(line) for line in tomllib.loads(read("pyproject.toml"))["build-system"]["requires"]]
    extras = [line for extra in EXTRAS[lock] for line in project()["optional-dependencies"][extra]]
    return [Requirement(line) for line in project()["dependencies"] + extras]


def pins(lock: str) -> list[Requirement]:
    """The lines of a lock, less its comments."""
    lines = read(f"requirements/{lock}.lock").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def instructions(*keywords: str, image: str = "Dockerfile") -> list[tuple[str, str]]:
    """An image's instructions in order, those of some keywords or all: each its keyword and, on one line, the rest."""
    lines = [line for line in read(image).splitlines() if not line.startswith("#")]
    whole = [line for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line]
    found = [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in whole)]
    return [(keyword, rest) for keyword, rest in found if not keywords or keyword in keywords]


def image_environment(image: str = "Dockerfile") -> dict[str, str]:
    """What an image sets, less what it extends."""
    pairs = [pair.split("=", 1) for _, rest in instructions("ENV", image=image) for pair in rest.split()]
    return {name: value for name, value in pairs if "$" not in value}


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
    return document


def composed_service() -> dict[str, Any]:
    """The one service of the compose file that runs where nothing more is asked for."""
    [service] = [service for service in compose()["services"].values() if "profiles" not in service]
    assert isinstance(service, dict)
    return service


@contextmanager
def answering(status: int, asked: list[str]) -> Iterator[int]:
    """A port of this machine where every GET is answered with `status`, and its path noted."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def check_health(image: str, port: int) -> int:
    """The exit status of an image's health check where the service is at `port`."""
    [(_, check)] = instructions("HEALTHCHECK", image=image)
    command = json.loads(check[check.index("CMD ") + len("CMD ") :])
    assert command[0] == "python"
    environment = os.environ | {"PRU_PORT": str(port)}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False)
    return done.returncode


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_exact_versions_and_no_files(lock: str) -> None:
    for pin in pins(lock):
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin
        assert pin.url is None


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_satisfies_what_the_project_requires(lock: str) -> None:
    for requirement in required(lock):
        name = canonicalize_name(requirement.name)
        versions = [next(iter(pin.specifier)).version for pin in pins(lock) if canonicalize_name(pin.name) == name]
        assert versions, requirement
        assert all(version in requirement.specifier for version in versions), requirement


@pytest.mark.parametrize("image", [*IMAGES, "Dockerfile.training"])
def test_an_image_builds_the_project_with_what_is_locked(image: str) -> None:
    assert any("requirements/build.lock" in rest for _, rest in instructions("COPY", image=image))
    installing = [
        part for _, rest in instructions("RUN", image=image) for part in rest.split("&&") if "install" in part
    ]
    [backend] = [part for part in installing if "/tmp/build.lock" in part]
    [project_itself] = [part for part in installing if "--editable" in part]
    assert "--no-build-isolation" in project_itself
    assert installing.index(backend) < installing.index(project_itself)


def test_what_builds_the_project_has_the_versions_of_the_environment_that_it_shares() -> None:
    versions = {pin.name: str(pin.specifier) for pin in pins("dev")}
    shared = [pin for pin in pins("build") if pin.name in versions]
    assert {pin.name: str(pin.specifier) for pin in shared} == {pin.name: versions[pin.name] for pin in shared}


def test_the_development_lock_adds_to_the_serving_lock() -> None:
    # Where a package is needed may differ: what serving needs on one system alone, a tool may need on all.
    assert {(pin.name, str(pin.specifier)) for pin in pins("cpu")} <= {
        (pin.name, str(pin.specifier)) for pin in pins("dev")
    }


def test_serving_on_a_cpu_installs_no_torch_and_no_lock_chooses_a_build_of_it() -> None:
    names = {lock: {pin.name for pin in pins(lock)} for lock in EXTRAS}
    assert {lock for lock in EXTRAS if "torch" in names[lock]} == {"dev", "gpu"}
    chosen = {name for name in names["dev"] | names["gpu"] if name.startswith(("nvidia", "cuda", "triton"))}
    assert chosen == {"triton"}, "which torch's build for CUDA asks for in the same version"


def test_no_environment_holds_both_onnx_runtimes() -> None:
    runtimes = {lock: {pin.name for pin in pins(lock)} & {"onnxruntime", "onnxruntime-gpu"} for lock in EXTRAS}
    assert runtimes == {"cpu": {"onnxruntime"}, "dev": {"onnxruntime"}, "gpu": {"onnxruntime-gpu"}}


def test_packages_have_the_same_version_on_a_gpu_as_where_they_are_tested() -> None:
    tested = {(pin.name, str(pin.specifier)) for pin in pins("dev")}
    assert {pin.name for pin in pins("gpu") if (pin.name, str(pin.specifier)) not in tested} == {"onnxruntime-gpu"}


def test_the_service_tells_the_version_of_the_project() -> None:
    assert project()["version"] == VERSION


@pytest.mark.parametrize("name", INSTALLING)
def test_where_packages_come_from_is_left_to_the_installer(name: str) -> None:
    text = read(name)
    assert [address for address in re.findall(r"https?://[^\s'\"]+", text) if "//127.0.0.1" not in address] == []
    assert re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text) is None


def test_make_serve_passes_the_port_on() -> None:
    plan = subprocess.run(
        ["make", "-n", "--no-print-directory", "serve", "PORT=8123"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert plan.stdout.splitlines()[-1] == "PRU_PORT=8123 .venv/bin/pru serve"


@pytest.mark.parametrize("target", ["serve", "test", "check", "bench"])
def test_make_installs_the_command_of_this_checkout_in_a_new_environment(target: str, tmp_path: Path) -> None:
    command = ["make", "-n", "--no-print-directory", target, f"VENV={tmp_path / 'none'}"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    [install] = [line for line in plan if "--editable" in line]
    assert install.endswith("install --quiet --no-build-isolation --no-deps --editable .")
    before = plan[: plan.index(install)]
    assert [line for line in before if line.endswith("install --quiet --requirement requirements/build.lock")]


def test_the_command_is_a_function_of_a_package_that_the_wheel_holds() -> None:
    configured = tomllib.loads(read("pyproject.toml"))
    assert configured["project"]["scripts"] == {"pru": "pru.__main__:main"}
    module, _, function = configured["project"]["scripts"]["pru"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    packages = configured["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == sorted(MAY_IMPORT.keys() - {"benchmarks", "docs", "tests"})


@pytest.mark.parametrize("target", ["test-gpu", "bench-gpu"])
def test_make_uses_an_interpreter_that_is_named_and_sets_up_no_other(target: str) -> None:
    command = ["make", "-n", "--no-print-directory", target, "PY=python3", "ARGS=-x"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(plan) == 1
    assert re.fullmatch(r"(PRU_TEST_DEVICE=cuda )?python3 -m .* -x", plan[0])


@pytest.mark.parametrize("image", IMAGES)
def test_all_that_an_image_copies_exists_and_reaches_the_build(image: str) -> None:
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copies = [rest.split()[:-1] for _, rest in instructions("COPY", image=image)]
    sources = [PurePosixPath(name) for names in copies if not names[0].startswith("--from") for name in names]
    assert PurePosixPath("requirements", f"{IMAGES[image]}.lock") in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert sent & {str(source), *map(str, source.parents)}, source


@pytest.mark.parametrize("image", IMAGES)
def test_every_stage_of_an_image_is_made_from_the_base_that_is_chosen(image: str) -> None:
    assert instructions(image=image)[0] == ("ARG", "BASE=python:3.11-slim")
    assert [rest for _, rest in instructions("FROM", image=image)] == ["${BASE} AS build", "${BASE}"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_serves_as_a_user_without_rights_and_keeps_one_volume(image: str) -> None:
    whole = instructions(image=image)
    [user], [entry] = instructions("USER", image=image), instructions("ENTRYPOINT", image=image)
    assert whole.index(("FROM", "${BASE}")) < whole.index(user) < whole.index(entry)
    # By number, since an orchestrator that refuses root cannot tell it from a name.
    assert user == ("USER", "10001:10001")
    assert json.loads(entry[1]) == ["pru"]
    [command] = instructions("CMD", image=image)
    assert json.loads(command[1]) == ["serve"]
    assert instructions("VOLUME", image=image) == [("VOLUME", "/data")]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_sets_only_what_the_service_reads(image: str) -> None:
    environment = image_environment(image)
    settings = {name.lower(): value for name, value in environment.items() if name.startswith("PRU_")}
    assert settings.keys() <= {f"pru_{name}" for name in Settings.model_fields}
    assert instructions("EXPOSE", image=image) == [("EXPOSE", settings["pru_port"])]
    assert settings["pru_bundle"] in {rest.split()[-1] for _, rest in instructions("COPY", image=image)}
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_both_images_are_alike_but_for_what_a_gpu_needs() -> None:
    here, there = image_environment(), image_environment("Dockerfile.gpu")
    assert here.items() <= there.items()
    assert there.keys() - here.keys() == {
        "NVIDIA_DRIVER_CAPABILITIES", "PRU_ENGINE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
    }  # fmt: skip
    assert all(there[name].startswith("/tmp/") for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"))


def test_the_image_compiles_modules_that_exist() -> None:
    commands = [rest for _, rest in instructions("RUN")]
    compiled = {name for command in commands for name in re.findall(r"\b(?:app|pru)\.[a-z_.]+", command)}
    assert compiled
    assert compiled <= modules("app").keys() | modules("pru").keys()


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_an_image_is_healthy_where_the_service_is_ready(image: str, status: int, exit_status: int) -> None:
    asked: list[str] = []
    with answering(status, asked) as port:
        assert check_health(image, port) == exit_status
    assert asked == ["/health/ready"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_not_healthy_where_nothing_listens(image: str) -> None:
    with answering(200, []) as port:
        pass
    assert check_health(image, port) == 1


def test_compose_serves_this_checkout_on_the_loopback_alone_and_needs_nothing_set() -> None:
    service = composed_service()
    assert {name: service[name] for name in ("build", "pull_policy")} == {"build": ".", "pull_policy": "build"}
    assert service["ports"] == [f"127.0.0.1:${{PORT:-8000}}:{image_environment()['PRU_PORT']}"]
    variables = re.findall(r"\$\{[A-Z_]+:-[0-9]*\}", read("docker-compose.yml"))
    assert read("docker-compose.yml").count("$") == len(variables), "a variable that is not set is empty"
    assert compose().keys() == {"x-confined", "x-service", "services", "volumes"}
    assert service.keys() & {"configs", "env_file", "secrets"} == set()
    # Reached from this machine alone, it needs no keys, and takes those that are given.
    assert service["environment"] == {"PRU_ALLOW_ANONYMOUS": "true", "PRU_KEYS": "${PRU_KEYS:-}"}


def test_compose_keeps_the_image_to_its_volume_and_takes_every_right_away() -> None:
    service = composed_service()
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["volumes"] == [f"data:{path}" for _, path in instructions("VOLUME")]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.keys() & {"cap_add", "devices", "ipc", "network_mode", "pid", "privileged", "user"} == set()


def test_compose_waits_for_longer_than_the_service_takes_to_finish() -> None:
    seconds = re.fullmatch(r"(\d+)s", composed_service()["stop_grace_period"])
    assert seconds is not None
    deadline = Settings.model_fields["deadline_seconds"].default
    assert int(seconds[1]) > math.ceil(deadline) + GRACE_SECONDS
