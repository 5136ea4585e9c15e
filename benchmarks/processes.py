"""Processes of this machine by their titles, and what memory they take.

Boundary: Linux's `/proc`.
"""

from __future__ import annotations

import re
from pathlib import Path


def named(beginning: str) -> list[int]:
    """Processes whose title begins so, by their numbers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:  # It has ended.
            continue
        if title.startswith(beginning.encode()):
            found.append(int(folder.name))
    return sorted(found)


def peak_bytes(process: int) -> int:
    """Largest resident memory of a process so far."""
    status = Path(f"/proc/{process}/status").read_text()
    [kibibytes] = re.findall(r"^VmHWM:\s+([0-9]+) kB$", status, re.MULTILINE)
    return int(kibibytes) << 10
