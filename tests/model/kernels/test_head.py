"""The softmax layer's kernels against log-probabilities in float64, and against each other to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.kernels import head, reference
from tests.model.kernels.tensors import DTYPES, close, spread

pytestmark = pytest.mark.usefixtures("_poisoned")


def softmax_layer(
    rows: int, words: int, size: int, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden vectors, table and bias."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, size, generator=generator).tanh()
    table = torch.randn(words, size, generator=generator) / size**0.5
    return hidden.to(device), table.to(dtype).to(device), torch.randn(words, generator=generator).to(device)


def check(hidden: Tensor, table: Tensor, bias: Tensor, k: int) -> None:
    """Log-probabilities are close to exact ones; scores, ranks and likeliest words are those of them to the bit."""
    likely = head.log_probabilities(hidden, table, bias)
    close(likely, reference.log_probabilities(hidden.to(table.dtype).double(), table.double(), bias.double()))
    targets = torch.arange(len(hidden), device=hidden.device) * 37 % len(table)
    values, ranks = head.score(hidden, table, bias, targets)
    assert torch.equal(values, likely.gather(1, targets[:, None])[:, 0])
    assert torch.equal(ranks, (likely > values[:, None]).sum(dim=1, dtype=torch.int32) + 1)
    ids, best = head.top_k(hidden, table, bias, k)
    expected, order = likely.sort(dim=1, descending=True)
    assert torch.equal(best, expected[:, :k])
    assert torch.equal(likely.gather(1, ids.long()), best)
    # Where two words differ by less than a log-probability shows, either order is right.
    apart = (expected[:, :k] > expected[:, 1 : k + 1]) if k < len(table) else (expected.diff(dim=1) < 0)
    same = ids[:, : apart.shape[1]] == order[:, : apart.shape[1]]
    alone = apart.clone()
    alone[:, 1:] &= apart[:, :-1]
    assert bool(same[alone].all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "words", "size", "k"),
    [(1, 300, 40, 5), (3, 128, 16, 16), (17, 129, 70, 3), (67, 257, 33, 17), (2, 40, 1, 40)],
)
def test_the_softmax_layer_is_that_in_float64(
    rows: int, words: int, size: int, k: int, dtype: torch.dtype, device: torch.device
) -> None:
    check(*softmax_layer(rows, words, size, dtype, device), k)


@settings(max_examples=15)
@given(
    rows=st.integers(1, 20),
    words=st.integers(2, 300),
    size=st.integers(1, 70),
    k=st.integers(1, 30),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_a_softmax_layer_of_any_size_is_that_in_float64(
    rows: int, words: int, size: int, k: int, dtype: torch.dtype, seed: int, device: torch.device
) -> None:
    check(*softmax_layer(rows, words, size, dtype, device, seed), min(k, words))


@pytest.mark.parametrize("k", [3, 20])
def test_words_as_likely_as_each_other_come_by_lower_id(k: int, device: torch.device) -> None:
    hidden = torch.ones(2, 16, device=device)
    table = torch.zeros(300, 16, dtype=torch.float16, device=device)
    table[[290, 7, 130, 5]] = 1.0
    ids, _ = head.top_k(hidden, table, torch.zeros(300, device=device), k)
    best = [5, 7, 130, 290]
    others = [word for word in range(300) if word not in best]
    assert ids.tolist() == [(best + others)[:k]] * 2


def test_a_rank_counts_strictly_likelier_words_only(device: torch.device) -> None:
    hidden = torch.ones(3, 16, device=device)
    table = torch.zeros(300, 16, dtype=torch.bfloat16, device=device)
    table[[290, 7]] = 1.0
    targets = torch.tensor([290, 7, 200], device=device)
    _, ranks = head.score(hidden, table, torch.zeros(300, device=device), targets)
    assert ranks.tolist() == [1, 1, 3]


@pytest.mark.parametrize("k", [4, 20])
def test_rows_that_are_cut_apart_give_the_same_to_the_bit_in_every_form(
    k: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "MOST_LOGITS", 150 * 18)
    layer = softmax_layer(40, 150, 24, torch.bfloat16, device)
    check(*layer, k)


def test_more_candidates_than_one_program_takes_are_sorted(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = softmax_layer(3, 300, 24, torch.bfloat16, device)
    expected = head.top_k(*layer, 5)
    monkeypatch.setattr(head, "MOST_MERGED", 23)
    assert all(map(torch.equal, head.top_k(*layer, 5), expected))


@pytest.mark.parametrize("chosen", [head.Cut(1, 128, 64, 8, 1), head.Cut(16, 64, 32, 4, 2)])
def test_in_however_many_tiles_a_row_is_cut_every_form_gives_the_same(
    chosen: head.Cut, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "cut", lambda rows, bytes_each: chosen)
    check(*softmax_layer(1, 300, 40, torch.bfloat16, device), 5)


def test_logits_that_are_all_negative_keep_their_order(device: torch.device) -> None:
    hidden, table, bias = softmax_layer(2, 200, 16, torch.float32, device)
    check(hidden, table, bias - 8, 5)


def test_the_softmax_layer_reads_views_of_any_strides(device: torch.device) -> None:
    hidden, table, bias = softmax_layer(3, 140, 20, torch.bfloat16, device)
    targets = torch.tensor([5, 139, 0], device=device)
    views = spread(hidden), spread(table), spread(bias)
    close(head.log_probabilities(*views), head.log_probabilities(hidden, table, bias))
    for found, expected in zip(
        head.score(*views, spread(targets)), head.score(hidden, table, bias, targets), strict=True
    ):
        close(found, expected)
    assert torch.equal(head.top_k(*views, 3)[0], head.top_k(hidden, table, bias, 3)[0])


def test_no_rows_give_no_values(device: torch.device) -> None:
    hidden, table, bias = softmax_layer(0, 140, 20, torch.float16, device)
    assert head.log_probabilities(hidden, table, bias).shape == (0, 140)
    assert head.score(hidden, table, bias, torch.empty(0, dtype=torch.int64, device=device))[1].shape == (0,)
    assert head.top_k(hidden, table, bias, 3)[0].shape == (0, 3)
