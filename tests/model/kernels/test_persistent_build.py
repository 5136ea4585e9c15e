"""The persistent kernel as its compiler sees it, and the cache of what was compiled."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from model.errors import EngineError
from model.kernels import persistent_build
from model.kernels.persistent_build import FLAGS, SOURCE, definitions, find_compiler, library
from model.kernels.persistent_plan import REGISTERS, THREAD_REGISTERS, Plan

PLAN = Plan(350, 8, 8, "registers")


@pytest.fixture
def nvcc() -> Path:
    found = find_compiler()
    if found is None:
        pytest.skip("needs nvcc, the compiler of the CUDA toolkit")
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRU_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program in the compiler's place: a shell script that finds the output's path in `$output`."""
    program = folder / "nvcc"
    find_output = 'while [ "$1" != -o ]; do shift; done; output=$2\n'
    program.write_text(f"#!/bin/sh\n{find_output}{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(persistent_build, "find_compiler", lambda: program)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "weights"),
    [
        (PLAN, "bfloat16"),
        (Plan(350, 8, 16, "registers"), "float16"),
        (Plan(1, 8, 8, "registers"), "float16"),
        # The most registers of each way to hold the weights.
        (Plan(384, 8, 16, "registers"), "bfloat16"),
        (Plan(512, 16, 16, "registers"), "bfloat16"),
        (Plan(576, 16, 16, "shared"), "float16"),
        (Plan(640, 16, 8, "shared"), "bfloat16"),
    ],
    ids=str,
)
def test_the_kernel_compiles_without_warnings_spills_or_a_stack(
    plan: Plan, weights: str, nvcc: Path, tmp_path: Path
) -> None:
    strict = ["-Werror=all-warnings", "-Xptxas=-v,-warn-spills,-warn-lmem-usage"]
    command = [str(nvcc), *FLAGS, *definitions(plan, weights), *strict, "-o", str(tmp_path / "kernel.so"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = done.stdout + done.stderr
    assert re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report) == [
        ("0", "0", "0")
    ]
    [registers] = map(int, re.findall(r"Used (\d+) registers", report))
    assert plan.weight_registers < registers <= THREAD_REGISTERS
    # Registers are given in eights, and to four warps at a time.
    assert -(-registers // 8) * 8 * 128 * -(-plan.warps // 4) <= REGISTERS
    assert "bytes smem" not in report  # all of it is asked for at the launch, as the plan says


@pytest.mark.slow
def test_a_library_is_built_once_and_found_again_without_a_compiler(
    nvcc: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = library(PLAN, "bfloat16")
    assert built is not None
    assert built.read_bytes()[:4] == b"\x7fELF"
    assert list(cache.iterdir()) == [built]
    monkeypatch.setattr(persistent_build, "find_compiler", lambda: None)
    assert library(PLAN, "bfloat16") == built


def test_without_a_compiler_there_is_no_library(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent_build, "find_compiler", lambda: None)
    assert library(PLAN, "bfloat16") is None
    assert not cache.exists()


def test_the_compiler_is_found_on_the_path_or_where_cuda_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert find_compiler() is None
    inside = tmp_path / "bin" / "nvcc"
    inside.parent.mkdir()
    inside.touch(0o755)
    assert find_compiler() == inside
    monkeypatch.setenv("PATH", str(inside.parent))
    assert find_compiler() == inside


def test_every_plan_and_type_has_a_library_of_its_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, "echo built >$output")
    plans = [PLAN, Plan(351, 8, 8, "registers"), Plan(350, 16, 8, "registers"), Plan(350, 8, 16, "registers")]
    built = {library(plan, weights) for plan in plans for weights in ("bfloat16", "float16")}
    assert built == set(cache.iterdir())
    assert len(built) == 8


def test_a_changed_source_is_built_again(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, "echo built >$output")
    before = library(PLAN, "bfloat16")
    header = tmp_path / "persistent.cuh"
    header.write_text("// another", encoding="utf-8")
    monkeypatch.setattr(persistent_build, "HEADERS", (header,))
    assert library(PLAN, "bfloat16") != before


def test_an_error_names_what_the_compiler_first_complains_of_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "echo 'In file included from x:' >&2; echo 'x.cu(3): error: no such thing' >&2; echo 'y: error: 2' >&2"
    pretend(tmp_path, monkeypatch, f"{said}; echo half >$output; exit 2")
    with pytest.raises(
        EngineError, match=r"^nvcc could not build the persistent kernel: x\.cu\(3\): error: no such thi"
    ):
        library(PLAN, "bfloat16")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    pretend(tmp_path, monkeypatch, "echo built >$output")
    monkeypatch.setenv("PRU_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"no kernel can be kept in .*file/kernels: .*; set PRU_CACHE_DIR"):
        library(PLAN, "bfloat16")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"PRU_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/shared"}, "/own/kernels"),
        ({"XDG_CACHE_HOME": "/shared"}, "/shared/pru/kernels"),
        ({"HOME": "/home/someone"}, "/home/someone/.cache/pru/kernels"),
    ],
)
def test_libraries_are_kept_with_what_else_the_project_caches(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PRU_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert persistent_build.cache_folder() == Path(folder)
