"""What this machine lacks to run an engine: a library, a device, a driver that is new enough.

Boundary: asks, loads as little as it can, and changes nothing. Each probe returns None where nothing is missing, else
what is and how to mend it, in one line. No torch is imported to learn that it is missing or was built for a CPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
from dataclasses import dataclass
from pathlib import Path

from model.errors import EngineError

Version = tuple[int, int]

FUSED_CAPABILITY: Version = (8, 0)
"""The first GPUs that multiply bfloat16 (Ampere)."""


@dataclass(frozen=True)
class CudaDevice:
    """The first GPU this process may use, as its driver tells."""

    capability: Version
    driver: Version
    """The newest CUDA that the driver runs."""


def onnx() -> str | None:
    """For ONNX Runtime on the CPU."""
    return _not_installed("onnxruntime", "pip install '.[cpu]'")


def onnx_cuda() -> str | None:
    """For ONNX Runtime on CUDA."""
    if missing := _not_installed("onnxruntime", "pip install '.[gpu]'") or _no_device():
        return missing
    from model import onnx_cuda_model  # noqa: PLC0415 - loads ONNX Runtime

    return onnx_cuda_model.missing_provider() or _no_device(built_for=onnx_cuda_model.built_for())


def torch_cpu() -> str | None:
    """For torch on the CPU."""
    return _not_installed("torch", "pip install '.[gpu]'")


def torch_cuda(needed: Version = (0, 0)) -> str | None:
    """For torch on CUDA, on a GPU of at least the compute capability `needed`."""
    if missing := torch_cpu() or _no_device(needed):
        return missing
    cuda = torch_built_for()
    if cuda is None:
        return "torch is a build for the CPU alone; install its build for CUDA"
    return _no_device(needed, cuda)


def fused() -> str | None:
    """For the fused kernels."""
    return torch_cuda(FUSED_CAPABILITY) or _not_installed("triton", "torch's build for CUDA brings it on Linux")


def torch_built_for() -> str | None:
    """The version of CUDA that the installed torch was built for, from its own record; None for the CPU's build."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    cuda: str | None = runpy.run_path(str(Path(spec.origin).with_name("version.py")))["cuda"]
    return cuda


def find_device() -> CudaDevice:
    """Ask the driver for the first GPU; `EngineError` that says what is in the way."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise EngineError("no CUDA device: NVIDIA's driver (libcuda.so.1) was not found") from None
    _ask(driver, "cuInit", 0)
    version, device, major, minor = (ctypes.c_int() for _ in range(4))
    _ask(driver, "cuDriverGetVersion", ctypes.byref(version))
    _ask(driver, "cuDeviceGet", ctypes.byref(device), 0)
    # The numbers are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    _ask(driver, "cuDeviceGetAttribute", ctypes.byref(major), 75, device)
    _ask(driver, "cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
    return CudaDevice((major.value, minor.value), (version.value // 1000, version.value % 1000 // 10))


def _ask(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    if status := getattr(driver, function)(*arguments):
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        raise EngineError(f"no CUDA device: {function} of NVIDIA's driver says {(text.value or b'?').decode()}")


def _no_device(needed: Version = (0, 0), built_for: str | None = None) -> str | None:
    """What is missing of a GPU of some compute capability with a driver for the CUDA that a library was built for."""
    try:
        device = find_device()
    except EngineError as error:
        return str(error)
    if device.capability < needed:
        return f"this GPU is of compute capability {_dotted(device.capability)} and {_dotted(needed)} is needed"
    # A driver runs every minor version of its major one.
    if built_for is not None and device.driver[0] < int(built_for.partition(".")[0]):
        return f"the driver is for CUDA {_dotted(device.driver)} and CUDA {built_for} is needed; update the driver"
    return None


def _not_installed(package: str, mend: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed; {mend}"


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
