"""Everything a run needs to go on exactly where it stopped, in one file that is written whole or not at all.

Boundary: tensors and a description to `resume.safetensors` and back. What the run does with them is `training.trainer`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.errors import TrainingError
from model.files import write_atomically
from training.averaging import Average
from training.objective import Objective

FILE = "resume.safetensors"


@dataclass
class Position:
    """Where a run stands: the next segment to read, and what was summed up so far."""

    epoch: int = 0
    segment: int = 0
    step: int = 0
    loss: float = 0.0
    """Sum of the epoch's losses, each weighed by its tokens."""
    tokens: int = 0
    """Tokens of the epoch that were read."""
    seconds: float = 0.0
    """Time spent training, evaluation included, over all parts of the run."""
    epoch_seconds: float = 0.0
    """The part of `seconds` spent training in this epoch."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """One entry for each finished epoch."""
    start_perplexity: float | None = None
    """Validation perplexity of the weights that the run started from, where it started from any."""
    averaging: bool = False
    """Whether NT-ASGD was triggered: from here on each update counts for the mean."""
    averaged: int = 0
    """Updates that the mean of the weights is of; 0 before there is one."""
    ended: bool = False
    """Whether validation stopped improving for good, before the last epoch."""

    @property
    def best(self) -> tuple[float, int | None]:
        """The lowest validation perplexity and its epoch: none where it is the start's, or where nothing is known."""
        start = math.inf if self.start_perplexity is None else self.start_perplexity
        epochs = [(point["valid_perplexity"], point["epoch"]) for point in self.curve]
        return min([(start, None), *epochs], key=lambda known: known[0])


@dataclass(frozen=True)
class Parts:
    """What changes while a run goes on, besides its position."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    average: Average


def save_resume(
    folder: Path, identity: dict[str, Any], position: Position, parts: Parts, of_processes: dict[str, Tensor]
) -> None:
    """Write everything into one file; `identity` says which run it is.

    `of_processes` is what each process has for itself: random generators and carried state.
    """
    tensors: dict[str, Tensor] = dict(parts.objective.state_dict())
    for index, values in parts.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    tensors |= {f"average.{index}": mean for index, mean in enumerate(parts.average.means)}
    tensors |= {f"process.{name}": tensor for name, tensor in of_processes.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"identity": json.dumps(identity), "position": json.dumps(asdict(position))}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, save(contiguous, metadata))


def load_resume(folder: Path, identity: dict[str, Any], parts: Parts) -> tuple[Position, dict[str, Tensor]]:
    """Put every part back in place; return the position and what each process had for itself.

    Raises `TrainingError` when there is nothing to resume, or when data, model, recipe or seed are not those of the
    run that stopped (the message names what differs).
    """
    path = folder / FILE
    afresh = f"start afresh in another --out folder, or delete {folder} first"
    if not path.exists():
        raise TrainingError(
            f"{path} is missing, so there is nothing to resume; leave --resume out to start afresh, in another --out "
            "folder if this one holds a run"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        then = json.loads(metadata["identity"])
        position = Position(**json.loads(metadata["position"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); {afresh}") from None
    if then != identity:
        raise TrainingError(f"{folder} holds another run: {_difference(then, identity)}; use another --out folder")
    objective, optimizer = parts.objective, parts.optimizer
    names = objective.state_dict().keys()
    if missing := names - tensors.keys():
        raise TrainingError(f"{path} holds no {min(missing)}; {afresh}")
    objective.load_state_dict({name: tensors[name] for name in names})
    optimizer_state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        optimizer_state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": optimizer.state_dict()["param_groups"]})
    means = _below(tensors, "average.")
    device = next(objective.parameters()).device
    parts.average.means = [means[str(index)].to(device) for index in range(len(means))]
    return position, _below(tensors, "process.")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _difference(then: Any, now: Any, path: str = "") -> str:
    """First place where two JSON values differ, in words."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            if then.get(key) != now.get(key):
                return _difference(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    return f"{path} was {json.dumps(then)} and is now {json.dumps(now)}"
