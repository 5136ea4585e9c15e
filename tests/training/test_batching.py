"""Streams cut into rows and segments."""

import numpy as np
import pytest
import torch

from model.errors import CorpusError
from training.batching import (
    as_rows,
    context_and_targets,
    fixed_lengths,
    partially_shuffled,
    segments,
    varied_lengths,
)


def test_every_token_is_a_target_once_and_its_input_is_the_token_before() -> None:
    ids = np.arange(1, 12, dtype=np.int32)
    rows = as_rows(context_and_targets(ids, eos_id=0), 1)
    pairs = list(segments(rows, fixed_lengths(11, 4)))
    assert torch.cat([inputs for inputs, _ in pairs], 1).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]
    assert torch.cat([targets for _, targets in pairs], 1).tolist() == [list(range(1, 12))]
    assert [inputs.shape[1] for inputs, _ in pairs] == [4, 4, 3]


def test_rows_are_consecutive_pieces_and_the_rest_is_dropped() -> None:
    assert as_rows(np.arange(11, dtype=np.int32), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_a_text_too_short_for_its_rows_is_refused() -> None:
    with pytest.raises(CorpusError, match="read in 3 rows of at least two; give more text"):
        as_rows(np.arange(5, dtype=np.int32), 3)


def test_varied_lengths_cover_every_step_and_stay_around_their_centres() -> None:
    lengths = varied_lengths(200_000, 70, np.random.default_rng(1))
    assert sum(lengths) == 200_000
    assert min(lengths[:-1]) >= 5
    long = [length for length in lengths if length > 50]
    short = [length for length in lengths[:-1] if length <= 50]
    assert 0.03 < len(short) / len(lengths) < 0.07
    assert np.mean(long) == pytest.approx(70, abs=1)  # int() rounds down by a half.
    assert np.std(long) == pytest.approx(5, abs=0.5)
    assert np.mean(short) == pytest.approx(35, abs=2)


def test_varied_lengths_of_a_short_segment_are_at_least_five_but_for_the_last() -> None:
    lengths = varied_lengths(1003, 6, np.random.default_rng(2))
    assert set(lengths[:-1]) >= {5, 6, 7}
    assert min(lengths[:-1]) == 5
    assert sum(lengths) == 1003


def test_partial_shuffling_turns_every_row_around_at_a_place_of_its_own() -> None:
    rows = torch.arange(40).view(4, 10)
    shuffled = partially_shuffled(rows, np.random.default_rng(3))
    starts = []
    for row, turned in zip(rows.tolist(), shuffled.tolist(), strict=True):
        start = row.index(turned[0])
        assert turned == row[start:] + row[:start]
        starts.append(start)
    assert len(set(starts)) > 1
    assert torch.equal(shuffled, partially_shuffled(rows, np.random.default_rng(3)))
