"""Where the kernels run: compiled on a GPU, or where there is none (or PRU_TEST_DEVICE=cpu) in Triton's interpreter.

Whether a kernel is interpreted is settled when it is defined, so Triton and the kernels are imported here first.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.model.kernels import interpreter

DEVICE = torch.device(os.environ.get("PRU_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
# Without it, cuBLAS has no algorithm that torch calls deterministic, which the fixture `_poisoned` asks for.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

with pytest.MonkeyPatch.context() as _patch:
    if DEVICE.type == "cpu":
        _patch.setenv("TRITON_INTERPRET", "1")
    for _name in ("decode", "head", "recurrence", "sequence"):
        importlib.import_module(f"model.kernels.{_name}")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the tensors of a test lie."""
    return DEVICE


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """A device that is a GPU."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")
    return device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a GPU: all tests of this folder where there is one, else those that nothing else can run."""
    here = Path(__file__).parent
    for item in items:
        used = getattr(item, "fixturenames", ())
        if here in item.path.parents and ("cuda" in used or (DEVICE.type == "cuda" and "device" in used)):
            item.add_marker("gpu")


@pytest.fixture(autouse=True, scope="session")
def _interpreted(device: torch.device) -> Iterator[None]:
    """Triton's interpreter with its bfloat16 mended."""
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
            interpreter.mend(patch)
        yield


@pytest.fixture
def _poisoned() -> Iterator[None]:
    """New tensors hold NaN, or the largest integer, until something is written."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
