"""The files around the code: locks, Makefile, and what goes into the image."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.main import VERSION
from tests.source import ROOT

EXTRAS = {"cpu": ["cpu"], "dev": ["cpu", "train", "dev"]}
"""Extras that each lock file holds besides the core dependencies."""

INSTALLING = [
    "Dockerfile",
    "Makefile",
    "docker-compose.yml",
    "pyproject.toml",
    "requirements/cpu.lock",
    "requirements/dev.lock",
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    """The table of that name in `pyproject.toml`."""
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def required(lock: str) -> list[Requirement]:
    """What `pyproject.toml` asks of a lock."""
    extras = [line for extra in EXTRAS[lock] for line in project()["optional-dependencies"][extra]]
    return [Requirement(line) for line in project()["dependencies"] + extras]


def pins(lock: str) -> list[Requirement]:
    """The lines of a lock, less its comments."""
    lines = read(f"requirements/{lock}.lock").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_names_exact_versions_and_no_files(lock: str) -> None:
    for pin in pins(lock):
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin
        assert pin.url is None


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_satisfies_what_the_project_requires(lock: str) -> None:
    for requirement in required(lock):
        name = canonicalize_name(requirement.name)
        versions = [next(iter(pin.specifier)).version for pin in pins(lock) if canonicalize_name(pin.name) == name]
        assert versions, requirement
        assert all(version in requirement.specifier for version in versions), requirement


def test_the_development_lock_adds_to_the_serving_lock() -> None:
    assert {str(pin) for pin in pins("cpu")} <= {str(pin) for pin in pins("dev")}


def test_serving_installs_no_torch_and_no_lock_chooses_a_build_of_it() -> None:
    serving, development = ({pin.name for pin in pins(lock)} for lock in ("cpu", "dev"))
    assert "torch" not in serving
    assert "torch" in development
    assert [name for name in development if name.startswith(("nvidia", "cuda", "triton"))] == []


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
    assert plan.stdout.splitlines()[-1] == "PRU_PORT=8123 .venv/bin/python -m app"


def test_all_that_the_image_copies_exists_and_reaches_the_build() -> None:
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copies = [line.split()[1:-1] for line in read("Dockerfile").splitlines() if line.startswith("COPY ")]
    sources = [PurePosixPath(name) for names in copies if not names[0].startswith("--from") for name in names]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert sent & {str(source), *map(str, source.parents)}, source
