"""The memory of a training process: one setting of the C library's allocator, how much was used, and too little of it.

Boundary: the process and its device. Called by the command line and the trainer, never by an import.
"""

from __future__ import annotations

import ctypes
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from model.errors import TrainingError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Let freed blocks be used again instead of going back to the system; does nothing where there is no glibc.

    Every update allocates and frees the same hundred megabytes. By default each block is mapped, zeroed page by page
    and unmapped again, which took a quarter of an update's time (10 M parameters, V=33,278, batch 20 x 35).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, 1 << 30)
        mallopt(_TOP_PAD, 64 << 20)


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Turn what Python, numpy and torch raise where memory is full into a `TrainingError` with its remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        told = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not told and not re.search("out of memory|allocate memory|not enough memory", reason):
            raise
        raise TrainingError(f"memory is full: {remedy} ({reason})") from None


def peak_bytes(device: torch.device) -> int:
    """Most memory that this process has used so far: on a CPU of its own, on a GPU as torch allocated it there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # The system's other count, in kibibytes too, begins with what the process had that started this one.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+([0-9]+) kB", status.read_text()) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) << 10
