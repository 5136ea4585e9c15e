"""The processes that train one model together, on one machine or several, as `torchrun` starts them.

Boundary: numbers and tensors exchanged between processes. With one process every exchange is what was put in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.errors import ConfigurationError


class Device(StrEnum):
    """Where to compute."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class World:
    """How many processes there are, and which of them this one is."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1
    _reduced: list[DistributedDataParallel] = field(default_factory=list, compare=False, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks to the terminal."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of `rows [B, ...]`, on its device."""
        return rows.chunk(self.size)[self.rank].to(self.device)

    def together(self, objective: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes, parameters those of the first."""
        if self.size == 1:
            return objective
        module = DistributedDataParallel(objective)
        self._reduced.append(module)
        return module

    def leave(self) -> None:
        """Exchange nothing any more."""
        for module in self._reduced:
            # If it kept the group alive, it would wait for the group's thread in the end while holding Python's lock,
            # and that thread may be waiting for the lock to free what was exchanged last.
            del module.reducer, module.logger
        dist.destroy_process_group()

    def mean(self, value: float) -> float:
        """Mean of a value over all processes; of a yes or no, above 0 where any says yes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.item() / self.size

    def of_first(self, value: float) -> float:
        """What the first process has."""
        return self.mean(value * self.size if self.leads else 0.0)

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of all processes, `rank.name`; the shapes of one name are the same everywhere."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            parts = [tensor]
            if self.size > 1:
                parts = [torch.empty_like(tensor, device=self.device) for _ in range(self.size)]
                dist.all_gather(parts, tensor.to(self.device))
            found |= {f"{rank}.{name}": part for rank, part in enumerate(parts)}
        return found


@contextmanager
def joined(device: Device | None = None) -> Iterator[World]:
    """The processes this one belongs to (`torchrun` says which), joined for the block; without `torchrun`, it alone.

    The device is by default CUDA where there is any; of several GPUs each process takes its own.
    Raises `ConfigurationError` for a device that this machine has not.
    """
    rank, size, local = _number("RANK", 0), _number("WORLD_SIZE", 1), local_rank()
    kind = _kind(device)
    here = _number("LOCAL_WORLD_SIZE", local + 1)
    if kind is Device.CUDA and here > (gpus := torch.cuda.device_count()):
        # Asked of the number and not of the place, so that all hear it and none waits for the others.
        raise ConfigurationError(f"{here} processes here have {gpus} GPUs; start {gpus}, by --nproc-per-node {gpus}")
    world = World(find_device(kind, local), rank, size)
    if size == 1:
        yield world
        return
    dist.init_process_group("nccl" if kind is Device.CUDA else "gloo")
    try:
        yield world
    finally:
        world.leave()


def find_device(device: Device | None = None, local: int = 0) -> torch.device:
    """The device asked for, by default CUDA where there is any; of several GPUs the `local`th.

    Raises `ConfigurationError` for a device that this machine has not.
    """
    if _kind(device) is Device.CPU:
        return torch.device("cpu")
    torch.cuda.set_device(local)
    torch.backends.cudnn.allow_tf32 = False  # What is called float32 is that.
    return torch.device("cuda", local)


def _kind(device: Device | None) -> Device:
    if device is Device.CUDA and not torch.cuda.is_available():
        raise ConfigurationError("this torch finds no CUDA device; leave --device out, or say --device cpu")
    return device or (Device.CUDA if torch.cuda.is_available() else Device.CPU)


def local_rank() -> int:
    """Which of this machine's processes this one is."""
    return _number("LOCAL_RANK", 0)


def _number(name: str, alone: int) -> int:
    """A number that `torchrun` sets, and what it is without."""
    return int(os.environ.get(name, alone))
