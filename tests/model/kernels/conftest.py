"""Where the kernels run: in Triton's interpreter on the CPU, or with PRU_TEST_DEVICE=cuda compiled on a GPU.

Whether a kernel is interpreted is settled when it is defined, so Triton and the kernels are imported here first.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

import pytest
import torch

from tests.model.kernels import interpreter

DEVICE = torch.device(os.environ.get("PRU_TEST_DEVICE", "cpu"))

with pytest.MonkeyPatch.context() as _patch:
    if DEVICE.type == "cpu":
        _patch.setenv("TRITON_INTERPRET", "1")
    for _name in ("decode", "head", "sequence"):
        importlib.import_module(f"model.kernels.{_name}")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the tensors of a test lie."""
    return DEVICE


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """A device that is a GPU; every test that uses it is marked `gpu`."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device; where there is one, set PRU_TEST_DEVICE=cuda")
    return device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that only a GPU can pass."""
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
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
