"""How the persistent kernel cuts a layer's recurrence for a chip: which sizes fit, and what of them lies where.

Boundary: arithmetic. What a plan's numbers mean, and the order of work, is `persistent.cuh`'s; `persistent_layout.cuh`
derives the same numbers at compile time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

SHARED_BYTES = 227 << 10
"""Shared memory that a block of a Hopper GPU can have."""
REGISTERS = 65_536
"""Registers of 32 bits of a multiprocessor, which runs one block."""
THREAD_REGISTERS = 255
"""Registers that one thread can have."""
WORK_REGISTERS = 72
"""Registers of a thread besides its weights: the compiler needs no more for 16 rows without spilling."""

Residence = Literal["registers", "shared"]


@dataclass(frozen=True)
class Plan:
    """One build of the kernel: groups of `width` outputs, `cluster` blocks a group, `rows` of the batch a cluster."""

    width: int
    cluster: int
    rows: int
    residence: Residence

    @property
    def warps(self) -> int:
        """Warps of a block, each with four outputs."""
        return -(-self.width // (4 * self.cluster))

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    @property
    def columns(self) -> int:
        """Outputs of a group, padded so that all warps of the cluster have four."""
        return 4 * self.warps * self.cluster

    @property
    def weight_registers(self) -> int:
        """Registers of a thread that hold weights: a warp's 16 rows in 16 bits."""
        return self.columns // 4 if self.residence == "registers" else 0

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: h twice, its weights, two barriers."""
        return 2 * (2 * self.rows * self.columns + self.warps * (16 * self.columns + 8)) + 16

    @property
    def fits(self) -> bool:
        """Whether a Hopper GPU can hold it. Registers are given to four warps at a time, eight a thread."""
        for_a_thread = min(THREAD_REGISTERS, REGISTERS // (128 * -(-self.warps // 4)) // 8 * 8)
        return self.shared_bytes <= SHARED_BYTES and self.weight_registers + WORK_REGISTERS <= for_a_thread


def plan(width: int, groups: int, batch: int, multiprocessors: int) -> Plan | None:
    """The plan for `groups` of `width` outputs and `batch` rows, all at least 1; None where a chip cannot hold a group.

    Clusters are of 8 blocks, which every Hopper GPU runs, and of 16 where 8 cannot hold the weights. They take 8 rows,
    and 16 where there are more clusters of 8 rows than run at once.
    """
    for cluster, residence in _preferences():
        small, large = (Plan(width, cluster, rows, residence) for rows in (8, 16))
        if small.fits:
            waiting = groups * -(-batch // small.rows) > multiprocessors // cluster
            return large if waiting and large.fits else small
    return None


def _preferences() -> Iterator[tuple[int, Residence]]:
    yield 8, "registers"
    yield 16, "registers"
    yield 16, "shared"
