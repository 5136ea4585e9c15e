"""Torch behind the engines' protocol: chunks, likeliest words, checks of arguments, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model import ranking, torch_model
from model.arguments import Floats
from model.errors import EngineError, EngineMemoryError
from model.torch_model import MAX_TOKENS, TensorModel, TorchModel, find_device, score, top_k

V, E, S = 50, 3, 4
MOST = MAX_TOKENS["cpu"]


class Counter(TensorModel):
    """Its hidden vectors hold a row's word and how many it has read, of which its state keeps count."""

    vocabulary_size, hidden_size, state_size = V, E, S

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []
        self.predicted: list[int] = []
        self.failing: Callable[[], None] = lambda: None

    def advance(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.failing()
        self.read.append((ids.shape[0], ids.shape[1]))
        place = state[:, :1] + 1 + torch.arange(ids.shape[1])
        hidden = torch.stack([ids.float(), place, torch.zeros_like(place)], dim=2)
        return hidden, state + lengths[:, None]

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        self.failing()
        self.predicted.append(len(hidden))
        return -((torch.arange(V) - hidden[:, :1]) ** 2) * (1 + 1e-7 * len(hidden))


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def model(counter: Counter) -> TorchModel:
    return TorchModel(counter, torch.device("cpu"))


def hidden_of(words: int) -> Floats:
    """Vectors after which each of so many words is the likeliest."""
    return np.stack([np.arange(words) % V, np.zeros(words), np.zeros(words)], axis=1).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 3, MOST, MOST + 1, 2 * MOST + 5])
@pytest.mark.parametrize("steps", [0, 1, 7, MOST + 1])
def test_any_batch_is_read_a_bounded_number_of_tokens_at_a_time(
    model: TorchModel, counter: Counter, rows: int, steps: int
) -> None:
    rng = np.random.default_rng(rows)
    ids = rng.integers(0, V, (rows, steps)).astype(np.int32)
    lengths = rng.integers(0, steps + 1, rows).astype(np.int32)
    states = rng.integers(0, 9, (rows, 1)).repeat(S, axis=1).astype(np.float32)
    before = states.copy()
    hidden, after = model.advance(ids, lengths, states)
    inside = np.arange(steps) < lengths[:, None]
    np.testing.assert_array_equal(hidden[inside][:, 0], ids[inside])
    np.testing.assert_array_equal(hidden[inside][:, 1], (states[:, :1] + 1 + np.arange(steps))[inside])
    np.testing.assert_array_equal(after, states + lengths[:, None])
    np.testing.assert_array_equal(states, before)
    assert all(batch * length <= MOST or length == 1 for batch, length in counter.read)
    assert all(batch <= MOST for batch, _ in counter.read)


def test_padding_is_read_as_the_first_word(model: TorchModel) -> None:
    ids = np.array([[5, 6, 7], [8, -1, 10**6]], np.int32)
    hidden, _ = model.advance(ids, np.array([3, 1], np.int32), np.zeros((2, S), np.float32))
    np.testing.assert_array_equal(hidden[..., 0], [[5, 6, 7], [8, 0, 0]])


@pytest.mark.parametrize("softmaxes", [1, 3])
def test_the_three_calls_cut_alike_and_agree_to_the_bit(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, softmaxes: int
) -> None:
    monkeypatch.setitem(torch_model.HEAD_BYTES, "cpu", 4 * V * softmaxes * 5)
    model = TorchModel(counter, torch.device("cpu"), softmaxes)
    hidden = hidden_of(13)
    likely = model.log_probabilities(hidden)
    best, values = model.top_k(hidden, 10**9)
    scores, ranks = model.score(hidden, best[:, 7].copy())
    assert counter.predicted == [5, 5, 3] * 3
    np.testing.assert_array_equal(best, np.argsort(-likely, axis=1, kind="stable"))
    np.testing.assert_array_equal(values, np.take_along_axis(likely, best, axis=1))
    np.testing.assert_array_equal(scores, values[:, 7])
    np.testing.assert_array_equal(ranks, 1 + (likely > scores[:, None]).sum(axis=1))
    assert [array.dtype.name for array in (best, values, scores, ranks)] == ["int32", "float32", "float32", "int32"]


@given(
    size=st.integers(1, 300),
    k=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_likeliest_words_and_ranks_are_those_of_numpy(size: int, k: int, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    likely = rng.integers(-levels, levels, (3, size)).astype(np.float32) / 7
    # Zeros of both signs are one value, and nothing is less likely than what is impossible.
    likely[:, rng.integers(size)] = -0.0
    likely[:, rng.integers(size)] = -np.inf
    k = min(k, size)
    best, values = top_k(torch.from_numpy(likely), k)
    targets = rng.integers(0, size, 3).astype(np.int32)
    scores, ranks = score(torch.from_numpy(likely), torch.from_numpy(targets))
    for row in range(3):
        expected, expected_values = ranking.top_k(likely[row], k)
        assert best[row].tolist() == expected.tolist()
        assert values[row].tolist() == expected_values.tolist()
        assert ranks[row].item() == ranking.rank(likely[row], targets[row])
        assert scores[row].item() == likely[row, targets[row]]


def test_arguments_that_do_not_fit_are_refused(model: TorchModel) -> None:
    one, state = np.ones(1, np.int32), np.zeros((1, S), np.float32)
    for ids, lengths, problem in [
        ([[V]], [1], "ids must be 0 to 49"),
        ([[-1]], [1], "ids must be 0 to 49"),
        ([[1, 2]], [3], "lengths must be 0 to 2"),
        ([[1, 2]], [1, 1], "advance needs"),
    ]:
        with pytest.raises(EngineError, match=problem):
            model.advance(np.array(ids, np.int32), np.array(lengths, np.int32), state)
    with pytest.raises(EngineError, match="needs k of at least 1, not 0"):
        model.top_k(hidden_of(1), 0)
    with pytest.raises(EngineError, match=r"hidden vectors must be \[N, 3\], not \[1, 2\]"):
        model.log_probabilities(hidden_of(1)[:, :2])
    with pytest.raises(EngineError, match="score needs a target below 50 for each of 1 vectors"):
        model.score(hidden_of(1), V * one)


@pytest.mark.parametrize(
    "problem",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf which more"),
        torch.jit.Error(
            "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript\n"
            "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        ),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 GiB"),
    ],
    ids=["cuda", "torchscript", "cpu"],
)
def test_a_batch_for_which_memory_is_too_small_is_lost_and_the_next_one_works(
    model: TorchModel, counter: Counter, problem: Exception
) -> None:
    def fail() -> None:
        raise problem

    expected = model.top_k(hidden_of(3), 2)
    counter.failing = fail
    arguments = np.zeros((2, 2), np.int32), np.full(2, 2, np.int32), np.zeros((2, S), np.float32)
    for call in (lambda: model.advance(*arguments), lambda: model.top_k(hidden_of(3), 2)):
        with pytest.raises(EngineMemoryError, match=r"memory is full.*allocate 2") as caught:
            call()
        assert "\n" not in str(caught.value)
        # Its traceback would keep the tensors of the failed call.
        assert caught.value.__context__ is None
    counter.failing = lambda: None
    np.testing.assert_array_equal(model.top_k(hidden_of(3), 2), expected)


def test_any_other_failure_is_one_line(model: TorchModel, counter: Counter) -> None:
    def fail() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nTraceback of torch")

    counter.failing = fail
    with pytest.raises(EngineError, match=r"torch failed while running the model: mat1 .* multiplied$") as caught:
        model.log_probabilities(hidden_of(1))
    assert not isinstance(caught.value, EngineMemoryError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineError, match="this torch finds no GPU"):
        find_device("cuda")
