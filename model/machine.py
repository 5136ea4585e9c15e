"""What machine this is, for records of where something was measured.

Boundary: asks the system, changes nothing, imports no torch.
"""

from __future__ import annotations

import platform
from pathlib import Path


def processor_name() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
