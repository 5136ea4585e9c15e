"""The operator of the recurrence: on a CPU the reference, on a GPU close to it in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from model.errors import EngineError
from model.kernels import persistent, reference
from model.kernels.persistent import Kernel, grouped_sequence
from model.kernels.persistent_plan import Plan
from tests.model.kernels.emulated import DTYPES, arguments, build, distance, poisoned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries of the emulated kernel are kept for the next test."""
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return "cuda"


@pytest.fixture
def hopper(gpu: str) -> str:
    if torch.cuda.get_device_capability()[0] != persistent.HOPPER:
        pytest.skip("needs a GPU of compute capability 9.0")
    return gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_cpu_the_operator_is_the_reference(dtype: torch.dtype) -> None:
    given = arguments(7, 3, 5, 4, dtype)
    found = torch.ops.pru.grouped_sequence(*given)
    assert all(map(torch.equal, found, reference.sequence(*given)))


def test_without_a_step_the_state_is_a_copy() -> None:
    pre, context, h, c, lengths = arguments(4, 2, 3, 2, torch.bfloat16)
    outputs, h_after, c_after = grouped_sequence(pre[:, :0], context, h, c, torch.zeros_like(lengths))
    assert outputs.shape == (3, 0, 8)
    assert torch.equal(h_after, h)
    assert torch.equal(c_after, c)
    h_after.zero_()
    assert h.abs().sum() > 0


def test_its_shapes_are_known_without_running_it() -> None:
    with FakeTensorMode():
        pre, context = torch.empty(5, 9, 4, 6), torch.empty(2, 3, 4, 3, dtype=torch.bfloat16)
        h, c, lengths = torch.empty(5, 6), torch.empty(5, 6), torch.empty(5, dtype=torch.int32)
        found = grouped_sequence(pre, context, h, c, lengths)
    assert [tuple(tensor.shape) for tensor in found] == [(5, 9, 6), (5, 6), (5, 6)]
    assert {tensor.dtype for tensor in found} == {torch.float32}


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_it_keeps_the_promises_of_an_operator(steps: int) -> None:
    pre, context, h, c, lengths = arguments(3, 2, 4, 4, torch.bfloat16)
    given = pre.nan_to_num()[:, :steps], context, h, c, lengths.clamp(max=steps)
    results = opcheck(grouped_sequence, given)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pre", lambda given: given.__setitem__(0, given[0][..., :-1])),
        ("context", lambda given: given.__setitem__(1, given[1][:, :, :3])),
        ("h", lambda given: given.__setitem__(2, given[2][:, 1:])),
        ("c", lambda given: given.__setitem__(3, given[3][:-1])),
        ("lengths", lambda given: given.__setitem__(4, given[4][:, None])),
    ],
)
def test_an_argument_that_does_not_fit_is_named(name: str, change: Callable[[list[Tensor]], None]) -> None:
    given = list(arguments(4, 2, 3, 2, torch.bfloat16))
    change(given)
    with pytest.raises(EngineError, match=rf"^{name} is \[.*\] on cpu; give \[.*\]"):
        grouped_sequence(*given)


def test_a_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernel.so").write_bytes(b"not a library")
    with pytest.raises(EngineError, match=r"kernel\.so cannot be loaded .*; delete it"):
        Kernel(tmp_path / "kernel.so")


def test_strides_and_types_of_the_arguments_do_not_matter_to_a_launch(folder: Path) -> None:
    plan = Plan(6, 8, 8, "registers")
    kernel = Kernel(build(folder, plan, "bfloat16"))
    pre, context, h, c, lengths = arguments(6, 2, 3, 4, torch.bfloat16)
    pre = pre.bfloat16()
    expected = reference.sequence(pre, context, h, c, lengths)

    def strided(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]

    given = (strided(pre), strided(context), strided(h), strided(c), strided(lengths).to(torch.int16))
    found = kernel.run(*given, device=0, stream=0)
    assert max(distance(ours, theirs) for ours, theirs in zip(found, expected, strict=True)) < 1e-4


@pytest.mark.parametrize(
    ("major", "dtype", "clusters", "chosen"),
    [
        (9, torch.bfloat16, 1, True),
        (9, torch.float16, 1, True),
        (9, torch.float32, 1, False),
        (10, torch.bfloat16, 1, False),
        (8, torch.bfloat16, 1, False),
        (9, torch.bfloat16, 0, False),  # a slice of a GPU that has no place for a cluster
    ],
)
def test_the_persistent_kernel_runs_on_hopper_gpus_in_16_bits(
    major: int, dtype: torch.dtype, clusters: int, chosen: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, major)
    monkeypatch.setattr(persistent, "library", lambda plan, weights: build(folder, plan, weights))
    monkeypatch.setattr(Kernel, "clusters", lambda self, device: clusters)
    given = arguments(6, 2, 3, 2, dtype)
    assert (persistent.kernel_for(*given[:4]) is not None) == chosen


def test_without_a_compiler_it_says_that_another_kernel_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpu(monkeypatch, persistent.HOPPER)
    monkeypatch.setattr(persistent, "library", lambda plan, weights: None)
    given = arguments(6, 2, 3, 2, torch.bfloat16)
    assert [persistent.kernel_for(*given[:4]) for _ in range(3)] == [None] * 3
    assert [record.message for record in caplog.records] == [
        "no nvcc to build the persistent kernel with: the Triton kernel runs in its place"
    ]


def test_where_the_persistent_kernel_does_not_run_the_triton_kernel_does(device: torch.device) -> None:
    given = arguments(6, 2, 3, 4, torch.bfloat16)
    found = persistent._fallback(*(tensor.to(device) for tensor in given))
    for ours, expected in zip(found, reference.sequence(*given), strict=True):
        assert ours.is_contiguous()
        assert distance(ours.cpu(), expected) < 1e-4


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    """Let tensors of the CPU seem to lie on a GPU of that compute capability, for which no kernel was loaded yet."""
    properties = SimpleNamespace(major=major, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(persistent, "_loaded", functools.cache(persistent._loaded.__wrapped__))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("width", "groups", "batch", "steps"),
    [
        (350, 4, 1, 33),
        (350, 4, 32, 16),
        (350, 4, 67, 20),
        (100, 4, 5, 64),
        (1, 3, 2, 5),
        (384, 1, 16, 9),
        (385, 1, 3, 8),
        (512, 2, 40, 12),
        (513, 1, 9, 6),
        (600, 2, 1, 32),
        (640, 1, 8, 7),
    ],
)
@pytest.mark.parametrize("weights", DTYPES)
def test_on_a_hopper_gpu_the_persistent_kernel_is_close_to_the_reference(
    width: int, groups: int, batch: int, steps: int, weights: str, hopper: str
) -> None:
    pre, context, h, c, lengths = arguments(width, groups, batch, steps, DTYPES[weights], hopper)
    assert persistent.kernel_for(pre, context, h, c) is not None
    with poisoned():
        found, again = (grouped_sequence(pre, context, h, c, lengths) for _ in range(2))
    assert all(map(torch.equal, found, again))
    pre, context, h, c, lengths = pre.cpu(), context.cpu(), h.cpu(), c.cpu(), lengths.cpu()
    exact = reference.sequence(pre.double(), context.double(), h.double(), c.double(), lengths)
    rounded = reference.sequence(pre, context, h, c, lengths)
    for ours, theirs, same in zip(found, exact, rounded, strict=True):
        assert distance(ours, theirs) < {"bfloat16": 1e-2, "float16": 2e-3}[weights]
        assert distance(ours, same) < 1e-3  # h rounded alike, so that only ties differ


@pytest.mark.gpu
def test_on_a_hopper_gpu_a_row_does_not_depend_on_its_batch(hopper: str) -> None:
    pre, context, h, c, lengths = arguments(350, 4, 67, 12, torch.bfloat16, hopper)
    together = grouped_sequence(pre, context, h, c, lengths)
    for row in (0, 33, 66):
        rows = slice(row, row + 1)
        alone = grouped_sequence(pre[rows], context, h[rows], c[rows], lengths[rows])
        assert all(torch.equal(one, many[rows]) for one, many in zip(alone, together, strict=True))


@pytest.mark.gpu
def test_on_a_hopper_gpu_it_can_be_captured_in_a_graph(hopper: str) -> None:
    given = arguments(350, 4, 4, 8, torch.bfloat16, hopper)
    expected = grouped_sequence(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = grouped_sequence(*given)
    for tensor in found:
        tensor.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, found, expected))


@pytest.mark.gpu
def test_on_a_gpu_a_group_too_wide_for_the_persistent_kernel_runs_all_the_same(gpu: str) -> None:
    pre, context, h, c, lengths = arguments(700, 1, 3, 5, torch.bfloat16, gpu)
    assert persistent.kernel_for(pre, context, h, c) is None
    found = grouped_sequence(pre, context, h, c, lengths)
    expected = reference.sequence(pre.cpu(), context.cpu(), h.cpu(), c.cpu(), lengths.cpu())
    assert max(distance(ours, theirs) for ours, theirs in zip(found, expected, strict=True)) < 1e-3
