"""The bound form of the ONNX step graphs against the plain one; here on the CPU, where both must agree to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.quantize import Precision
from model import onnx_cuda_model, onnx_model
from model.arguments import Floats
from model.errors import EngineError, EngineMemoryError
from model.onnx_cuda_model import OnnxCudaModel
from model.onnx_model import OnnxModel
from tests.export.samples import build, config_of, random_ids, random_states, random_weights

CONFIG = config_of()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bound")
    build(CONFIG, random_weights(CONFIG), Precision.FLOAT32, folder, lengths=(1, 4, 16))
    return sorted(folder.glob("*.onnx"))


@pytest.fixture(scope="module")
def models(files: list[Path]) -> tuple[OnnxModel, OnnxCudaModel]:
    return OnnxModel(files, threads=1), OnnxCudaModel(files, threads=1, device="cpu")


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of at most eight tokens, so that rows are read in parts."""
    monkeypatch.setattr(onnx_model, "MAX_TOKENS", 8)


def agree(models: tuple[OnnxModel, OnnxCudaModel], lengths: list[int], seed: int = 0) -> None:
    rows, width = len(lengths), max(lengths, default=0)
    ids, states = random_ids(CONFIG, rows, width, seed=seed), random_states(CONFIG, rows, seed=seed)
    before = states.copy()
    (hidden, after), (expected, expected_after) = (
        model.advance(ids, np.array(lengths, np.int32), states) for model in reversed(models)
    )
    np.testing.assert_array_equal(after, expected_after)
    np.testing.assert_array_equal(hidden, expected)
    np.testing.assert_array_equal(states, before)


@given(st.lists(st.integers(0, 45), max_size=7), st.integers(0, 100))
def test_any_batch_gives_what_the_plain_form_gives(
    models: tuple[OnnxModel, OnnxCudaModel], lengths: list[int], seed: int
) -> None:
    agree(models, lengths, seed)


@pytest.mark.parametrize("lengths", [[7] * 20, [1] * 9, [0, 3, 5, 5, 0, 21, 1, 4, 4, 4, 17, 16]])
@pytest.mark.usefixtures("crowded")
def test_rows_that_are_read_in_parts_keep_their_own_states(
    models: tuple[OnnxModel, OnnxCudaModel], lengths: list[int]
) -> None:
    agree(models, lengths)


def test_the_state_is_sent_to_the_device_once_for_as_long_as_the_same_rows_go_on(
    models: tuple[OnnxModel, OnnxCudaModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = onnxruntime.OrtValue.ortvalue_from_numpy

    def watched(array: Floats, *device: str) -> object:
        sent.append(array.shape)
        return send(array, *device)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", watched)
    agree(models, [39, 39, 39])
    assert sent == [(3, CONFIG.state_size)]
    sent.clear()
    agree(models, [39, 17, 39])
    assert sent == [(3, CONFIG.state_size), (2, CONFIG.state_size)]


def test_a_run_that_finds_memory_full_is_an_error_and_the_next_one_works(
    models: tuple[OnnxModel, OnnxCudaModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 4294967296\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", full)
        with pytest.raises(EngineMemoryError, match=r"^memory is full: free some .*size 4294967296\)$"):
            agree(models, [3, 3])
    agree(models, [3, 3])


def test_a_runtime_without_cuda_says_which_package_has_it(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        EngineError, match=r"no CUDAExecutionProvider \(it has CPUExecutionProvider\); .*onnxruntime-gpu"
    ):
        OnnxCudaModel(files, threads=1)


def test_a_runtime_that_takes_the_cpu_in_silence_is_refused(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    session = onnxruntime.InferenceSession

    def without_its_library(path: Path, options: object, **_: object) -> object:
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_its_library)
    with pytest.raises(EngineError, match="took CPUExecutionProvider, since its CUDAExecutionProvider could not be"):
        OnnxCudaModel(files, threads=1)


def test_float32_on_cuda_is_not_rounded_to_fewer_bits(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def note(path: Path, options: object, *, providers: list[object], **_: object) -> object:
        asked.append(providers)
        raise RuntimeError("stop")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    with pytest.raises(EngineError, match="cannot be loaded by ONNX Runtime: stop"):
        OnnxCudaModel(files, threads=1)
    assert asked == [[(onnx_cuda_model.CUDA_PROVIDER, {"use_tf32": "0"})]]
