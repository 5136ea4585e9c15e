"""The persistent kernel's source compiled for the emulated machine of `emulator.hpp`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from model.kernels.persistent_build import SOURCE, definitions
from model.kernels.persistent_plan import Plan
from tests.commands import required

EMULATION = Path(__file__).with_name("emulation.cpp")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def build(folder: Path, plan: Plan, weights: str, headers: Path = SOURCE.parent) -> Path:
    """A library with the functions of `persistent.cu`, whose device is a seed for the order of things."""
    library = folder / f"{'-'.join(map(str, (plan.width, plan.cluster, plan.rows, plan.residence)))}-{weights}.so"
    if library.exists():
        return library
    compiler = required(shutil.which("g++"), "g++")
    named = [*definitions(plan, weights)[:-1], f"-DFORMAT={weights.capitalize()}"]
    options = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{headers}"]
    subprocess.run([compiler, *options, *named, "-o", str(library), str(EMULATION)], check=True)
    return library


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that nothing writes holds NaN here."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def arguments(
    width: int, groups: int, batch: int, steps: int, dtype: torch.dtype, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fresh arguments of `reference.sequence`, with ragged lengths of which one is 0 (but for one row) and one is T."""
    outputs = groups * width
    pre = torch.randn(batch, steps, 4, outputs)
    context = (torch.randn(groups, width, 4, width) * width**-0.5).to(dtype)
    h, c = torch.rand(batch, outputs) * 2 - 1, torch.randn(batch, outputs)
    lengths = torch.randint(0, steps + 1, (batch,))
    lengths[0], lengths[batch // 2] = 0, steps
    # What lies beyond a row's length is the caller's padding.
    pre = torch.where(torch.arange(steps)[None, :, None, None] < lengths[:, None, None, None], pre, torch.nan)
    return pre.to(device), context.to(device), h.to(device), c.to(device), lengths.to(device)


def distance(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference relative to that of what was expected; NaN where a value is."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())
