"""The persistent kernel's own source, run on a CPU by a machine that emulates a cluster of thread blocks."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
import torch

from model.errors import EngineError
from model.kernels import reference
from model.kernels.persistent import Kernel
from model.kernels.persistent_build import HEADERS
from model.kernels.persistent_plan import Plan
from tests.model.kernels.emulated import DTYPES, arguments, build, distance, poisoned

SMALL = Plan(36, 8, 8, "registers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries of the emulated kernel are kept for the next test."""
    return tmp_path_factory.mktemp("emulated")


@pytest.mark.parametrize(
    ("plan", "weights", "groups", "batch", "steps"),
    [
        (Plan(350, 8, 8, "registers"), "bfloat16", 1, 1, 3),
        (Plan(50, 8, 8, "registers"), "bfloat16", 2, 3, 6),
        (Plan(5, 8, 16, "registers"), "float16", 3, 35, 4),  # odd: weights are loaded one by one; three tiles
        (Plan(1, 8, 8, "registers"), "bfloat16", 2, 9, 5),
        (Plan(72, 16, 8, "registers"), "float16", 1, 7, 4),
        (Plan(36, 16, 16, "shared"), "bfloat16", 2, 19, 4),
    ],
    ids=str,
)
def test_the_kernel_gives_what_the_reference_gives(
    plan: Plan, weights: str, groups: int, batch: int, steps: int, folder: Path
) -> None:
    kernel = Kernel(build(folder, plan, weights))
    given = arguments(plan.width, groups, batch, steps, DTYPES[weights])
    expected = reference.sequence(*given)
    for seed in range(3):
        with poisoned():
            found = kernel.run(*given, device=seed, stream=0)
        # Of the same products of the same 16-bit values; only the order of sums and the exponentials differ.
        for ours, theirs in zip(found, expected, strict=True):
            assert distance(ours, theirs) < 1e-4
        beyond = torch.arange(steps) >= given[-1][:, None]
        assert (found[0][beyond] == 0).all()


def test_rows_without_steps_keep_their_state_to_the_bit(folder: Path) -> None:
    pre, context, h, c, lengths = arguments(SMALL.width, 1, 4, 3, torch.bfloat16)
    outputs, h_after, c_after = Kernel(build(folder, SMALL, "bfloat16")).run(
        pre, context, h, c, torch.zeros_like(lengths), device=0, stream=0
    )
    assert (outputs == 0).all()
    assert torch.equal(h_after, h)
    assert torch.equal(c_after, c)


@pytest.mark.parametrize(
    ("correct", "mistaken"),
    [
        ("Machine::wait(barriers + t % 2, (t - 1) / 2 % 2);", ";"),
        ("Machine::wait(barriers + t % 2, (t - 1) / 2 % 2);", "Machine::wait(barriers + t % 2, t / 2 % 2);"),
        ("if (Machine::thread() == 0) Machine::expect(barriers + t % 2, arriving);", ""),
        ("buffers + (t + 1) % 2 * S::buffer + S::h_at(", "buffers + t % 2 * S::buffer + S::h_at("),
        ("    Machine::sync_cluster();\n    const", "    const"),
        ("arriving = rows *", "arriving = S::rows *"),
    ],
    ids=["no wait", "wrong phase", "no arrival", "one buffer", "no start together", "bytes of absent rows"],
)
def test_the_emulation_finds_mistakes_of_synchronisation(correct: str, mistaken: str, tmp_path: Path) -> None:
    for header in HEADERS:
        shutil.copy(header, tmp_path)
    source = tmp_path / "persistent.cuh"
    text = source.read_text(encoding="utf-8")
    assert text.count(correct) == 1
    source.write_text(text.replace(correct, mistaken), encoding="utf-8")
    kernel = Kernel(build(tmp_path, SMALL, "bfloat16", headers=tmp_path))
    given = arguments(SMALL.width, 1, 4, 6, torch.bfloat16)
    expected = reference.sequence(*given)
    try:
        found = kernel.run(*given, device=0, stream=0)
    except EngineError as problem:
        assert "waits" in str(problem) or "waited" in str(problem)  # noqa: PT017 - one of two ways to be found
    else:
        assert not max(distance(ours, theirs) for ours, theirs in zip(found, expected, strict=True)) < 1e-4


@pytest.mark.parametrize(
    "plan", [Plan(350, 8, 8, "registers"), Plan(36, 16, 16, "shared"), Plan(1, 8, 8, "registers")], ids=str
)
def test_the_layout_gives_everything_a_place_of_its_own(plan: Plan, folder: Path) -> None:
    layout = ctypes.CDLL(str(build(folder, plan, "bfloat16")))
    sizes = layout.pru_threads(), layout.pru_columns(), layout.pru_shared_bytes()
    assert sizes == (plan.threads, plan.columns, plan.shared_bytes)
    columns = range(plan.columns)
    assert sorted(layout.pru_h_at(row, column) for row in range(plan.rows) for column in columns) == list(
        range(plan.rows * plan.columns)
    )
    assert sorted(map(layout.pru_place, columns)) == list(columns)
    for warp in range(plan.warps):
        start = warp * (16 * plan.columns + 8)
        places = sorted(layout.pru_weight_at(warp, place, row) for place in columns for row in range(16))
        assert places == list(range(start, start + 16 * plan.columns))


def test_rows_of_a_matrix_load_lie_in_different_banks(folder: Path) -> None:
    layout = ctypes.CDLL(str(build(folder, SMALL, "bfloat16")))
    for first in range(0, SMALL.columns, 8):
        for half in (0, 8):
            addresses = [2 * layout.pru_weight_at(1, first + place, half) for place in range(8)]
            assert {address // 16 % 8 for address in addresses} == set(range(8))  # 32 banks of 4 bytes are 8 of 16
