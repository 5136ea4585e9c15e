"""What each engine's probe says of machines that lack something, and that it says nothing of one that lacks nothing."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest

from app.engines import probes
from app.engines.probes import CudaDevice


class Driver:
    """NVIDIA's driver as `ctypes` shows it, with one GPU: the calls that probes make of it."""

    def __init__(self, capability: tuple[int, int], cuda: int, failing: str = "") -> None:
        self.attributes = dict(zip((75, 76), capability, strict=True))
        self.cuda = cuda
        self.failing = failing

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 100
            if name == "cuDriverGetVersion":
                arguments[0]._obj.value = self.cuda
            elif name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = self.attributes[arguments[1]]
            elif name == "cuGetErrorString":
                arguments[1]._obj.value = b"no CUDA-capable device is detected"
            else:
                assert name in {"cuInit", "cuDeviceGet"}
            return 0

        return call


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the machine an H100, CUDA 12.8 and libraries built for CUDA, less what the test takes away."""

    def install(
        driver: Driver | None = None,
        *,
        absent: str = "",
        torch: str | None = "12.8",
        providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider"),
    ) -> None:
        found = driver or Driver((9, 0), 12080)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: {"libcuda.so.1": found}[name])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else name)
        monkeypatch.setattr(probes, "torch_built_for", lambda: torch)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(providers))
        monkeypatch.setattr(onnxruntime, "cuda_version", "12.8")

    return install


EVERY = [probes.onnx, probes.onnx_cuda, probes.torch_cpu, probes.torch_cuda, probes.fused]
ON_CUDA = [probes.onnx_cuda, probes.torch_cuda, probes.fused]

Probe = Callable[[], str | None]


@pytest.mark.parametrize("probe", EVERY)
def test_a_machine_that_has_all_lacks_nothing(probe: Probe, gpu: Callable[..., None]) -> None:
    gpu()
    assert probe() is None


def test_the_driver_tells_what_the_gpu_and_the_driver_are(gpu: Callable[..., None]) -> None:
    gpu(Driver((7, 5), 13010))
    assert probes.find_device() == CudaDevice(capability=(7, 5), driver=(13, 1))


@pytest.mark.parametrize("probe", ON_CUDA)
def test_a_machine_without_the_driver_is_told_so(
    probe: Probe, gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu()

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert probe() == "no CUDA device: NVIDIA's driver (libcuda.so.1) was not found"


@pytest.mark.parametrize("probe", ON_CUDA)
@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet"])
def test_a_driver_that_shows_no_gpu_is_quoted(probe: Probe, function: str, gpu: Callable[..., None]) -> None:
    gpu(Driver((9, 0), 12080, failing=function))
    assert probe() == f"no CUDA device: {function} of NVIDIA's driver says no CUDA-capable device is detected"


@pytest.mark.parametrize("probe", ON_CUDA)
def test_a_driver_older_than_the_library_is_to_be_updated(probe: Probe, gpu: Callable[..., None]) -> None:
    gpu(Driver((9, 0), 11080))
    assert probe() == "the driver is for CUDA 11.8 and CUDA 12.8 is needed; update the driver"


@pytest.mark.parametrize("probe", ON_CUDA)
@pytest.mark.parametrize("driver", [12000, 13000])
def test_a_driver_of_the_same_major_version_or_a_later_one_will_do(
    probe: Probe, driver: int, gpu: Callable[..., None]
) -> None:
    gpu(Driver((9, 0), driver))
    assert probe() is None


def test_the_fused_kernels_need_a_gpu_that_multiplies_bfloat16(gpu: Callable[..., None]) -> None:
    gpu(Driver((7, 5), 12080))
    assert probes.fused() == "this GPU is of compute capability 7.5 and 8.0 is needed"
    assert probes.torch_cuda() is None
    gpu(Driver((8, 0), 12080))
    assert probes.fused() is None


@pytest.mark.parametrize(
    ("probe", "package", "mend"),
    [
        (probes.onnx, "onnxruntime", "[cpu]"),
        (probes.onnx_cuda, "onnxruntime", "[gpu]"),
        (probes.torch_cpu, "torch", "[gpu]"),
        (probes.torch_cuda, "torch", "[gpu]"),
        (probes.fused, "torch", "[gpu]"),
        (probes.fused, "triton", "build for CUDA"),
    ],
)
def test_a_library_that_is_missing_is_named_with_how_to_get_it(
    probe: Probe, package: str, mend: str, gpu: Callable[..., None]
) -> None:
    gpu(absent=package)
    missing = probe()
    assert missing is not None
    assert missing.startswith(f"{package} is not installed; ")
    assert mend in missing


def test_libraries_built_for_the_cpu_are_told_from_those_for_cuda(gpu: Callable[..., None]) -> None:
    gpu(torch=None, providers=("CPUExecutionProvider",))
    for probe in (probes.torch_cuda, probes.fused):
        assert probe() == "torch is a build for the CPU alone; install its build for CUDA"
    missing = probes.onnx_cuda()
    assert missing is not None
    assert missing.startswith("this ONNX Runtime has no CUDAExecutionProvider (it has CPUExecutionProvider)")
    assert (probes.onnx(), probes.torch_cpu()) == (None, None)


def test_what_torch_was_built_for_is_what_torch_says() -> None:
    import torch

    assert probes.torch_built_for() == torch.version.cuda


@pytest.mark.gpu
def test_the_gpu_of_this_machine_is_what_torch_says_it_is() -> None:
    import torch

    assert probes.find_device().capability == torch.cuda.get_device_capability(0)


@pytest.mark.gpu
@pytest.mark.parametrize("probe", EVERY)
def test_a_machine_for_tests_on_gpus_lacks_nothing(probe: Probe) -> None:
    assert probe() is None
