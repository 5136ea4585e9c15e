"""Streams cut into rows and segments."""

import numpy as np
import pytest
import torch

from model.errors import CorpusError
from training.batching import as_rows, context_and_targets, fixed_lengths, segments


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
