"""One setting of the C library's allocator that large tensors need.

Boundary: the process's memory allocator. Called by the command line, never by an import.
"""

from __future__ import annotations

import ctypes

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
