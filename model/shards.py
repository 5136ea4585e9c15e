"""Weights cut into files of a bounded size, for moving between machines.

Boundary: arrays by name in, groups of arrays out, and back. A matrix too large for a file is cut between its rows: the
piece of rows a to b of `name` is called `name[a:b]`. Reading and writing files is `model.checkpoint`'s.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import CheckpointError

Weights = dict[str, npt.NDArray[np.float32]]
_PIECE = re.compile(r"(.+)\[([0-9]+):([0-9]+)\]")
_HEADER = 4096
"""Bytes of a file left for its own header, which names and places a few arrays."""


def pieces(weights: dict[str, npt.NDArray[Any]], limit: int) -> list[dict[str, npt.NDArray[Any]]]:
    """Cut weights into groups of at most `limit` bytes a file; `CheckpointError` where one row is larger."""
    room = limit - _HEADER
    groups: list[dict[str, npt.NDArray[Any]]] = [{}]
    left = room
    for name, array in weights.items():
        rows = array if array.ndim else array[None]
        start = 0
        while start < len(rows):
            row = rows[0].nbytes
            if row > room:
                raise CheckpointError(f"{limit} bytes do not hold one row of {name} ({row} bytes); give a higher limit")
            if left < row:
                groups.append({})
                left = room
            stop = min(len(rows), start + left // row)
            whole = start == 0 and stop == len(rows)
            groups[-1][name if whole else f"{name}[{start}:{stop}]"] = np.ascontiguousarray(rows[start:stop])
            left -= (stop - start) * row
            start = stop
    return groups


def joined(parts: Weights) -> Weights:
    """Put pieces together again; `CheckpointError` that names the rows that are not there."""
    weights: Weights = {}
    cut: dict[str, dict[int, tuple[int, npt.NDArray[np.float32]]]] = {}
    for name, array in parts.items():
        if match := _PIECE.fullmatch(name):
            cut.setdefault(match[1], {})[int(match[2])] = int(match[3]), array
        else:
            weights[name] = array
    for name, found in cut.items():
        row, rows = 0, []
        while row in found:
            row, array = found.pop(row)
            rows.append(array)
        if found or not rows:
            raise CheckpointError(f"the pieces of {name} lack what follows row {row}; bring all of one checkpoint")
        weights[name] = np.concatenate(rows)
    return weights


def shard_paths(folder: Path, count: int) -> list[Path]:
    """Where the pieces of a checkpoint are."""
    return [folder / f"model-{index:05}-of-{count:05}.safetensors" for index in range(1, count + 1)]
