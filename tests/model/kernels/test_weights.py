"""Packing, and the file that packed weights travel in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.errors import ConfigurationError, EngineError, ExportError
from model.kernels.weights import FusedWeights, load_weights, pack, save_weights
from model.pru import PRULayer
from tests.model.kernels.models import language_model

METADATA = {"format_version": "1", "dtype": "bfloat16"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_weights(pack(language_model(), torch.bfloat16), tmp_path)


def altered(path: Path, changes: Mapping[str, torch.Tensor | None], **metadata: str) -> Path:
    """The file with some tensors replaced, added or, where there is none, left out."""
    tensors = {**load_file(path), **changes}
    save_file({name: x for name, x in tensors.items() if x is not None}, path, METADATA | metadata)
    return path


def test_an_input_matrix_does_what_the_layer_does_with_its_input() -> None:
    model = language_model(levels=3)
    layer = model.layers[1]
    assert isinstance(layer, PRULayer)
    [_, packed, _] = pack(model, torch.float32).layers
    x = torch.randn(5, 24)
    expected = layer.from_input(x) + layer.context.get_parameter("bias")
    torch.testing.assert_close(torch.einsum("bn,nvm->bvm", x, packed.weight) + packed.bias, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_come_back_from_their_file_as_they_were(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = pack(language_model(), dtype)
    loaded = load_weights(save_weights(weights, tmp_path))
    assert loaded.dtype is dtype
    for (name, found), (same_name, expected) in zip(loaded.named(), weights.named(), strict=True):
        assert name == same_name
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"mogrifier_rounds": 2}, r"mogrifier gating \(2 rounds\)"),
        ({"softmaxes": 3}, "a mixture of 3 softmaxes"),
        ({"context_transform": "pyramidal"}, "a pyramidal context transform"),
        ({"subsampling": "max"}, "max sub-sampling"),
        ({"subsampling": "convolution", "softmaxes": 2}, "a mixture of 2 softmaxes, convolution sub-sampling"),
    ],
)
def test_what_the_kernels_do_not_have_is_refused_by_name(changes: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"do not have {what}.*; use the torchscript engine"):
        pack(language_model(**changes), torch.bfloat16)


def test_a_value_beyond_half_precision_is_refused_by_its_tensors_name() -> None:
    model = language_model()
    torch.nn.init.constant_(model.get_parameter("layers.2.context.weight"), 70_000.0)
    with pytest.raises(ExportError, match=r"layers\.2\.context holds values that are not finite in float16"):
        pack(model, torch.float16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["table", "decoder_bias", "layers.1.weight"])
def test_a_file_that_holds_no_number_is_refused_by_its_tensors_name(path: Path, name: str, value: float) -> None:
    tensor = load_file(path)[name]
    tensor.view(-1)[3] = value
    with pytest.raises(EngineError, match=f"{name} holds values that are not finite"):
        load_weights(altered(path, {name: tensor}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": None}, "table is missing or does not belong"),
        ({"layers.2.bias": None}, "layers.2.bias is missing or does not belong"),
        ({"extra": torch.zeros(1)}, "extra is missing or does not belong"),
        ({"layers.1.bias": torch.zeros(4, 8)}, r"layers.1.bias is \[4, 8\] of float32, not \[4, 24\] of float32"),
        ({"layers.1.bias": torch.zeros(4, 24).half()}, r"\[4, 24\] of float16, not \[4, 24\] of float32"),
        ({"table": torch.zeros(3)}, r"table is \[3\] of float32"),
    ],
)
def test_a_file_whose_tensors_do_not_belong_together_is_refused(
    path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        load_weights(altered(path, changes))


@pytest.mark.parametrize("metadata", [{"format_version": "2"}, {"dtype": "int8"}])
def test_a_file_of_another_version_or_type_is_refused(path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(EngineError, match="this program reads version 1 and bfloat16, float16, float32"):
        load_weights(altered(path, {}, **metadata))


def test_a_file_that_is_cut_short_or_missing_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"weights\.safetensors cannot be read"):
        load_weights(path)
    path.unlink()
    with pytest.raises(EngineError, match=r"weights\.safetensors cannot be read"):
        load_weights(path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "weights.safetensors", METADATA)
    with pytest.raises(EngineError, match="is missing or does not belong"):
        load_weights(tmp_path / "weights.safetensors")


def test_packed_weights_are_named_once_each() -> None:
    weights = pack(language_model(), torch.float16)
    assert isinstance(weights, FusedWeights)
    names = [name for name, _ in weights.named()]
    assert names[:5] == ["table", "decoder_bias", "layers.0.weight", "layers.0.bias", "layers.0.context"]
    assert len(set(names)) == len(names) == 11
