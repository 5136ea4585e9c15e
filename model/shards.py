"""Weights cut into files of a bounded size, for moving between machines.

Boundary: arrays by name in, groups of arrays out, and back. A matrix too large for a file is cut between its rows: the
piece of rows a to b of `name` is called `name[a:b]`. Reading and writing files is `model.checkpoint`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import CheckpointError

Weights = dict[str, npt.NDArray[np.float32]]
_PIECE = re.compile(r"(.+)\[([0-9]+):([0-9]+)\]")
_FILE = re.compile(r"model-[0-9]{5,6}-of-([0-9]{5,6})\.safetensors")
_HEADER = 256
"""Bytes of a file left for what its header holds besides the arrays: its length and the sum of the whole."""
_ENTRY = 96
"""Bytes of a header left for what it says of one array besides its name and its shape: type and place."""


def pieces(weights: dict[str, npt.NDArray[Any]], limit: int) -> list[dict[str, npt.NDArray[Any]]]:
    """Cut weights into groups of at most `limit` bytes a file; `CheckpointError` where one row is larger."""
    room = limit - _HEADER
    groups: list[dict[str, npt.NDArray[Any]]] = [{}]
    left = room
    for name, array in weights.items():
        count = len(array) if array.ndim and array.size else 1
        row, entry = array.nbytes // count, _entry_bytes(name, array)
        if entry + row > room:
            raise CheckpointError(f"{limit} bytes do not hold one row of {name} ({row} bytes); give a higher limit")
        start = 0
        while start < count:
            if left < entry + row:
                groups.append({})
                left = room
            stop = min(count, start + (left - entry) // row) if row else count
            if stop - start == count:
                groups[-1][name] = array
            else:
                groups[-1][f"{name}[{start}:{stop}]"] = np.ascontiguousarray(array[start:stop])
            left -= entry + (stop - start) * row
            start = stop
    return groups


def _entry_bytes(name: str, array: npt.NDArray[Any]) -> int:
    """Most bytes that the header of a safetensors file takes for an array or a piece of it."""
    rows = len(array) if array.ndim else 0
    return len(json.dumps(f"{name}[{rows}:{rows}]")) + len(str(array.shape)) + _ENTRY


def joined(parts: Weights) -> Weights:
    """Put pieces together again; `CheckpointError` that names what has pieces missing, or pieces of something else."""
    weights: Weights = {}
    cut: dict[str, dict[int, tuple[int, npt.NDArray[np.float32]]]] = {}
    for name, array in parts.items():
        if match := _PIECE.fullmatch(name):
            cut.setdefault(match[1], {})[int(match[2])] = int(match[3]), array
        else:
            weights[name] = array
    for name, found in cut.items():
        row, rows = 0, list[npt.NDArray[np.float32]]()
        while row in found:
            start = row
            row, array = found.pop(row)
            if array.shape[:1] != (row - start,) or array.shape[1:] != (rows or [array])[0].shape[1:]:
                raise CheckpointError(f"the pieces of {name} are of different weights; bring all of one checkpoint")
            rows.append(array)
        if found or not rows or name in weights:
            raise CheckpointError(f"the pieces of {name} lack what follows row {row}; bring all of one checkpoint")
        weights[name] = np.concatenate(rows)
    return weights


def shard_paths(folder: Path, count: int) -> list[Path]:
    """Where the pieces of a checkpoint are."""
    return [folder / f"model-{index:05}-of-{count:05}.safetensors" for index in range(1, count + 1)]


def find_shards(folder: Path) -> Sequence[Path]:
    """The pieces in a folder, none where it holds none; `CheckpointError` that names one missing or left over."""
    found = {path: int(match[1]) for path in folder.glob("model-*") if (match := _FILE.fullmatch(path.name))}
    if not found:
        return []
    expected = shard_paths(folder, max(found.values()))
    if missing := sorted(set(expected) - found.keys()):
        raise CheckpointError(f"{missing[0]} is missing; bring all {len(expected)} pieces of the checkpoint")
    if foreign := sorted(found.keys() - set(expected)):
        raise CheckpointError(f"{foreign[0]} is not one of {len(expected)} pieces; bring those of one checkpoint alone")
    return expected
