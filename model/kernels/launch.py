"""One launch of a Triton kernel as a value: what it runs, over which grid, with which arguments.

Boundary: knows no kernel. Apart from running it, a launch can be compiled for a device that is not there, which is how
the tests see that a kernel fits one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROGRAMS = 128
"""Programs of one launch that keep a large GPU busy: about as many as it has multiprocessors."""


@dataclass(frozen=True)
class Launch:
    """`arguments` are known when it runs, `constants` when the kernel is compiled; both by name.

    Kernels do not specialise numbers of rows and steps, which differ from call to call: each would be compiled anew.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, int]
    warps: int
    stages: int

    def run(self) -> None:
        """Put it on the current stream."""
        self.kernel[self.grid](**self.arguments, **self.constants, **self.options)

    @property
    def options(self) -> dict[str, int]:
        """What the compiler is told besides. Multiplying and adding in one is left to it, as it long was by default."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


def blocks(count: int, size: int) -> int:
    """Blocks of `size` that cover `count`."""
    return -(-count // size)


def power_of_two(count: int, smallest: int, largest: int) -> int:
    """The first power of two that is not below `count`, kept between two of them."""
    return min(largest, max(smallest, 1 << (count - 1).bit_length()))
