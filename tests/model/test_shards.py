"""Weights cut into files of a bounded size: whatever the shapes, they come back, and a wrong set of files is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from model.errors import CheckpointError
from model.shards import find_shards, joined, pieces, shard_paths

METADATA = {"whole": "0" * 64}
"""As large as what a pack says of itself in each file."""


def numbers(*shape: int) -> npt.NDArray[np.float16]:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float16).reshape(shape)


shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="[]\n"), min_size=1, max_size=300)


@given(st.dictionaries(names, shapes, max_size=30), st.integers(2_000, 20_000))
def test_pieces_fit_their_files_and_joined_are_the_same_arrays(of: dict[str, tuple[int, ...]], limit: int) -> None:
    weights = {name: numbers(*shape) for name, shape in of.items()}
    largest = max(
        (array.nbytes // max(1, array.shape[0] if array.ndim else 1) for array in weights.values()), default=0
    )
    # A row needs its own bytes and what a header says of it, a long name above all.
    groups = pieces(weights, limit + largest + 4_500)
    assert max(len(save(group, METADATA)) for group in groups) <= limit + largest + 4_500
    parts: dict[str, Any] = {}
    for group in groups:
        assert parts.keys().isdisjoint(group)
        parts |= group
    back = joined(parts)
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        assert back[name].dtype == np.float16
        np.testing.assert_array_equal(back[name], array)


def test_many_small_arrays_with_long_names_fit_too() -> None:
    weights = {f"{'layer.' * 40}{index}": numbers(2) for index in range(2_000)}
    groups = pieces(weights, 50_000)
    sizes = [len(save(group, METADATA)) for group in groups]
    assert max(sizes) <= 50_000
    # Nor is much of a file left empty.
    assert min(sizes[:-1]) > 35_000


def test_a_large_matrix_fills_its_files() -> None:
    groups = pieces({"matrix": numbers(1_000, 100)}, 20_000)
    sizes = [len(save(group, METADATA)) for group in groups]
    assert max(sizes) <= 20_000
    assert min(sizes[:-1]) > 19_000
    assert list(groups[0]) == ["matrix[0:98]"]


def test_a_row_larger_than_a_file_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"3000 bytes do not hold one row of wide \(4000 bytes\); give a higher"):
        pieces({"narrow": numbers(4, 10), "wide": numbers(3, 2_000)}, 3_000)


def cut() -> dict[str, Any]:
    """The pieces of a matrix, three or more."""
    parts: dict[str, Any] = {}
    for group in pieces({"matrix": numbers(30, 100), "bias": numbers(30)}, 2_000):
        parts |= group
    assert len([name for name in parts if name.startswith("matrix[")]) >= 3
    return parts


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_piece_is_named_by_the_row_it_begins_with(which: int) -> None:
    parts = cut()
    name = [name for name in parts if name.startswith("matrix[")][which]
    row = name.partition("[")[2].partition(":")[0]
    del parts[name]
    with pytest.raises(CheckpointError, match=f"the pieces of matrix lack what follows row {row};"):
        joined(parts)


@pytest.mark.parametrize("shape", [(3, 99), (2, 100), (3,), (3, 100, 1), ()])
def test_a_piece_of_other_weights_is_refused(shape: tuple[int, ...]) -> None:
    parts = cut()
    with pytest.raises(CheckpointError, match="the pieces of matrix are of different weights"):
        joined(parts | {[name for name in parts if name.startswith("matrix[")][1]: numbers(*shape)})


def test_a_matrix_both_whole_and_in_pieces_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the pieces of matrix"):
        joined(cut() | {"matrix": numbers(30, 100)})


def test_the_files_of_one_checkpoint_are_found_in_order(tmp_path: Path) -> None:
    assert find_shards(tmp_path) == []
    assert find_shards(tmp_path / "nowhere") == []
    for path in reversed(shard_paths(tmp_path, 12)):
        path.touch()
    (tmp_path / "model-a-of-b.safetensors").touch()
    assert find_shards(tmp_path) == shard_paths(tmp_path, 12)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_missing_file_is_named(tmp_path: Path, index: int) -> None:
    for path in shard_paths(tmp_path, 3):
        path.touch()
    (tmp_path / f"model-0000{index}-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"model-0000{index}-of-00003.safetensors is missing; bring all 3"):
        find_shards(tmp_path)


def test_a_file_left_over_from_other_pieces_is_named(tmp_path: Path) -> None:
    for path in [*shard_paths(tmp_path, 3), *shard_paths(tmp_path, 2)]:
        path.touch()
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors is not one of 3 pieces"):
        find_shards(tmp_path)
