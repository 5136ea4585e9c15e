"""The persistent kernel compiled for one plan: a shared library in the user's cache folder, made by `nvcc` if missing.

Boundary: files and the compiler. A library's name is a sum of its source and of how it was compiled, so that a library
from the cache is never of another version, and one built elsewhere (in an image's build, say) serves where there is no
compiler. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from model.errors import EngineError
from model.files import write_atomically
from model.kernels.persistent_plan import Plan

SOURCE = Path(__file__).with_name("persistent.cu")
HEADERS = tuple(SOURCE.with_name(f"persistent{part}.cuh") for part in ("", "_hopper", "_layout"))
FLAGS = ("-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-shared", "-Xcompiler=-fPIC")
FORMATS = {"bfloat16": "__nv_bfloat16", "float16": "__half"}
"""Types of the weights that the kernel takes, as CUDA names them."""


def definitions(plan: Plan, weights: str) -> tuple[str, ...]:
    """What the compiler is told of a plan and of the type of its weights."""
    values = {
        "WIDTH": plan.width,
        "CLUSTER": plan.cluster,
        "ROWS": plan.rows,
        "RESIDENCE": plan.residence,
        "FORMAT": FORMATS[weights],
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


def find_compiler() -> Path | None:
    """`nvcc` on the path or in `$CUDA_HOME`."""
    if found := shutil.which("nvcc"):
        return Path(found)
    inside = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda") / "bin" / "nvcc"
    return inside if inside.is_file() else None


def library(plan: Plan, weights: str) -> Path | None:
    """The library of a plan for weights of a type of `FORMATS`, built if the cache lacks it.

    None where it is not in the cache and there is no compiler. Raises `EngineError` with the compiler's first error,
    and where the cache cannot be written.
    """
    flags = (*FLAGS, *definitions(plan, weights))
    digest = hashlib.sha256("\0".join(flags).encode())
    for path in (SOURCE, *HEADERS):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    built = cache_folder() / f"persistent-{digest.hexdigest()[:32]}.so"
    if built.is_file():
        return built
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pru-") as folder:
            output = Path(folder) / built.name
            _compile([str(compiler), *flags, "-o", str(output), str(SOURCE)])
            write_atomically(built, output.read_bytes())
    except OSError as problem:
        reason = problem.strerror or problem
        raise EngineError(f"no kernel can be kept in {built.parent}: {reason}; set PRU_CACHE_DIR to a folder") from None
    return built


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).splitlines()
        first = next((line for line in lines if "error" in line or "fatal" in line), None)
        first = first or next(iter(lines), f"exit status {done.returncode}")
        raise EngineError(f"nvcc could not build the persistent kernel: {first.strip()}; use CUDA 12.4 or later")


def cache_folder() -> Path:
    """`kernels` in `$PRU_CACHE_DIR`, or in `pru` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if own := os.environ.get("PRU_CACHE_DIR"):
        return Path(own) / "kernels"
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "pru" / "kernels"
    try:
        return Path.home() / ".cache" / "pru" / "kernels"
    except RuntimeError:
        raise EngineError("no home folder to keep kernels in; set PRU_CACHE_DIR to a folder") from None
