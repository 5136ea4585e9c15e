"""A packed model against the language model it was packed from, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from model.errors import EngineError, EngineMemoryError
from model.kernels import forms, fused
from model.kernels.fused import FusedModel
from model.kernels.weights import pack
from model.torch_model import TorchModel
from tests.model.kernels.models import language_model, read
from tests.model.kernels.tensors import close

FORMS = [forms.plain, forms.fused]
LENGTHS = torch.tensor([5, 0, 2, 1])


def batch(state_size: int, rows: int = 4, steps: int = 5) -> tuple[Tensor, Tensor]:
    """Ids and states; what is beyond a row's length is no word."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(150, (rows, steps), generator=generator)
    return ids, torch.randn(rows, state_size, generator=generator).tanh()


def packed(
    device: torch.device, dtype: torch.dtype = torch.float32, form: Callable[[], forms.Forms] = forms.fused
) -> FusedModel:
    return FusedModel(pack(language_model(), dtype), device, form())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 1, "levels": 1, "residual": False},
        {"groups": 2, "levels": 2, "subsampling": "skip"},
        {"groups": 4, "levels": 3},
        {"groups": 8, "levels": 4, "split": "equal", "average_kernels": "paper"},
        {"levels": 1, "subsampling": "max"},
        {"input_transform": "linear"},
        {"input_transform": "grouped", "context_transform": "linear"},
        {"layers": 1, "hidden_size": 16, "groups": 2},
    ],
    ids=str,
)
def test_a_packed_model_in_float32_is_the_model_it_was_packed_from(
    changes: dict[str, object], form: Callable[[], forms.Forms], device: torch.device
) -> None:
    model = language_model(**changes)
    engine = FusedModel(pack(model, torch.float32), device, form())
    ids, state = batch(model.config.state_size)
    expected_hidden, expected_state = read(model, ids, LENGTHS, state)
    hidden, after = engine.advance(ids, LENGTHS, state.to(device))
    inside = torch.arange(5) < LENGTHS[:, None]
    close(hidden.cpu()[inside], expected_hidden[inside])
    close(after.cpu(), expected_state)
    close(engine.log_probabilities(hidden[0]).cpu(), model.log_probabilities(expected_hidden[0]).detach(), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernels_and_the_plain_forms_agree_in_half_precision(dtype: torch.dtype, device: torch.device) -> None:
    ids, state = batch(128)
    state = state.to(device)
    (h, s), (plain_h, plain_s) = (packed(device, dtype, form).advance(ids, LENGTHS, state) for form in FORMS)
    # A last bit can decide how an h is rounded.
    close(h, plain_h, 1e-3)
    close(s, plain_s, 1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_moves_log_probabilities_little(dtype: torch.dtype, device: torch.device) -> None:
    model = language_model()
    ids, state = batch(128)
    hidden, _ = read(model, ids, LENGTHS, state)
    found, _ = packed(device, dtype).advance(ids, LENGTHS, state.to(device))
    close(packed(device, dtype).log_probabilities(found[0]).cpu(), model.log_probabilities(hidden[0]).detach(), 0.06)


@pytest.mark.parametrize("form", FORMS)
def test_text_read_a_word_at_a_time_gives_the_state_of_text_read_at_once(
    form: Callable[[], forms.Forms], device: torch.device
) -> None:
    engine = packed(device, form=form)
    ids, state = batch(128)
    state = state.to(device)
    whole, expected = engine.advance(ids, torch.full((4,), 5), state)
    for t in range(5):
        hidden, state = engine.advance(ids[:, t : t + 1], torch.ones(4, dtype=torch.int64), state)
        close(hidden[:, 0], whole[:, t])
    close(state, expected)


def test_text_read_in_chunks_gives_the_same(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = packed(device, torch.bfloat16)
    ids, state = batch(128)
    whole = engine.advance(ids, LENGTHS, state.to(device))
    monkeypatch.setattr(fused, "MAX_TOKENS", 8)
    for found, expected in zip(engine.advance(ids, LENGTHS, state.to(device)), whole, strict=True):
        close(found, expected)


def test_a_row_without_ids_keeps_its_state_in_a_single_step(device: torch.device) -> None:
    engine = packed(device)
    ids, state = batch(128, steps=1)
    ids[1] = -5
    _, after = engine.advance(ids, torch.tensor([1, 0, 1, 1]), state.to(device))
    assert torch.equal(after[1].cpu(), state[1])
    assert not torch.equal(after[0].cpu(), state[0])


@pytest.mark.parametrize(("rows", "steps"), [(0, 3), (2, 0)])
def test_nothing_to_read_leaves_every_state_as_it_was(rows: int, steps: int, device: torch.device) -> None:
    state = torch.ones(rows, 128, device=device)
    hidden, after = packed(device).advance(
        torch.empty(rows, steps, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64), state
    )
    assert hidden.shape == (rows, steps, 16)
    assert torch.equal(after, state)


def test_hidden_is_the_h_that_the_state_ends_with(device: torch.device) -> None:
    ids, state = batch(128)
    engine = packed(device, torch.float16)
    hidden, after = engine.advance(ids, torch.full((4,), 5), state.to(device))
    assert torch.equal(hidden[:, -1], after[:, -32:-16])


@pytest.mark.parametrize("form", FORMS)
def test_scores_ranks_and_likeliest_words_are_those_of_the_log_probabilities(
    form: Callable[[], forms.Forms], device: torch.device
) -> None:
    engine = packed(device, torch.bfloat16, form)
    hidden = torch.randn(6, 16, generator=torch.Generator().manual_seed(1)).to(device)
    likely = engine.log_probabilities(hidden)
    targets = torch.arange(6) * 20
    values, ranks = engine.score(hidden, targets)
    assert torch.equal(values, likely[range(6), targets.tolist()])
    assert torch.equal(ranks, (likely > values[:, None]).sum(dim=1) + 1)
    ids, best = engine.top_k(hidden, 1000)
    assert ids.shape == (6, 150)
    assert torch.equal(best, likely.sort(dim=1, descending=True).values)
    assert torch.equal(likely.gather(1, ids.long()), best)


def test_calls_that_do_not_fit_the_model_are_refused(device: torch.device) -> None:
    engine = TorchModel(packed(device), device)
    ids, lengths, state = np.zeros((2, 3), np.int32), np.array([3, 3], np.int32), np.zeros((2, 128), np.float32)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: engine.advance(ids, lengths, state[:1]), r"state \[B, 128\], not \[2, 3\], \[2\] and \[1, 128\]"),
        (lambda: engine.advance(ids, lengths + 1, state), "lengths must be 0 to 3"),
        (lambda: engine.advance(ids - 1, lengths, state), "ids must be 0 to 149"),
        (lambda: engine.log_probabilities(state), r"must be \[N, 16\], not \[2, 128\]"),
        (lambda: engine.top_k(state[:, :16], 0), "k of at least 1, not 0"),
        (lambda: engine.score(state[:, :16], np.array([0, 150], np.int32)), "a target below 150 for each of 2"),
    ]
    for call, message in calls:
        with pytest.raises(EngineError, match=message):
            call()


def test_too_little_memory_for_one_batch_leaves_the_next_one_working(device: torch.device) -> None:
    engine = packed(device)
    forms_before, failures = engine._forms, [torch.OutOfMemoryError(), RuntimeError("illegal address\nmore")]

    def failing(hidden: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        if failures:
            raise failures.pop(0)
        return forms_before.log_probabilities(hidden, table, bias)

    engine._forms = forms_before._replace(log_probabilities=failing)
    hidden = torch.ones(2, 16, device=device)
    with pytest.raises(EngineMemoryError, match="too little memory for this batch; send fewer or shorter texts"):
        engine.log_probabilities(hidden)
    with pytest.raises(EngineError, match=r"failed while running the model: illegal address$"):
        engine.log_probabilities(hidden)
    assert engine.log_probabilities(hidden).shape == (2, 150)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gpu_before_compute_capability_8_is_refused_and_other_engines_named(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(
        EngineError, match=r"Tesla T4 is of .* 7\.5 and the .* 8\.0; use the onnx-cuda or the torchscript"
    ):
        FusedModel(pack(language_model(), dtype), torch.device("cuda"))


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no cuda that torch can use; use the onnx engine"):
        FusedModel(pack(language_model(), torch.float16), torch.device("cuda"))


def test_without_triton_the_kernels_are_refused_and_another_engine_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model.kernels.decode", None)
    monkeypatch.delattr("model.kernels.decode")
    with pytest.raises(EngineError, match="install triton, or use the torchscript engine"):
        forms.forms_for(torch.device("cuda"))


def test_a_cpu_gets_the_plain_forms() -> None:
    assert forms.forms_for(torch.device("cpu")).sequence is forms.plain().sequence


def test_steps_replayed_from_graphs_are_the_steps_launched_one_by_one(cuda: torch.device) -> None:
    engine = packed(cuda, torch.bfloat16)
    for rows in (1, 3, 4, 7, 300):
        ids, state = batch(128, rows, steps=1)
        state = state.to(cuda)
        for _ in range(3):
            expected = torch.empty_like(state)
            engine.write_step(ids[:, 0].to(cuda), state, expected)
            hidden, state = engine.advance(ids, torch.ones(rows, dtype=torch.int64), state)
            # A batch that is padded up may run in another form of the kernel.
            close(state, expected, 1e-3)
            assert torch.equal(hidden[:, 0], state[:, -32:-16])
        kept, _ = state.clone(), engine.advance(ids, torch.ones(rows, dtype=torch.int64), state)
        assert torch.equal(state, kept), "a state is the caller's, whatever is replayed after it"
    assert sorted(engine._graphs) == [1, 4, 8]


def test_a_batch_beyond_the_gpus_memory_is_refused_and_the_next_one_works(cuda: torch.device) -> None:
    engine = packed(cuda, torch.bfloat16)
    hidden = torch.ones(1, 16, device=cuda)
    with pytest.raises(EngineMemoryError, match="too little memory"):
        engine.log_probabilities(hidden.expand(1 << 33, 16))
    assert engine.log_probabilities(hidden).shape == (1, 150)
