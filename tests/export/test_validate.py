"""Validation: perplexity as one stream, and graphs that are wrong in some way are refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from export.forms import OnnxForm
from export.quantize import Precision
from export.validate import (
    CHUNK_TOKENS,
    Differences,
    ExportedReader,
    Measured,
    ReferenceReader,
    check_cost,
    check_signatures,
    check_values,
    perplexity,
)
from model.arguments import Floats, Ids
from model.config import ModelConfig
from model.errors import ExportError
from model.language_model import LanguageModel
from model.onnx_model import OnnxModel
from tests.export.reference import ReferenceModel
from tests.export.samples import Weights, build, config_of, random_ids, random_weights

CONFIG = config_of()
IDS = random_ids(CONFIG, 2 * CHUNK_TOKENS + 3)
EOS = 4


def torch_model(weights: Weights, config: ModelConfig = CONFIG) -> LanguageModel:
    model = LanguageModel(config)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


def check(model: OnnxModel, precision: Precision, reference: LanguageModel) -> Differences:
    """The values of a precision's graphs."""
    return check_values(model, f"onnx {precision}", OnnxForm(precision).limits, reference, IDS)


def check_perplexity(perplexity: float, precision: Precision, max_cost: float) -> None:
    """A perplexity where the reference's is 100."""
    check_cost(measured(perplexity), f"onnx {precision}", OnnxForm(precision).limits, max_cost)


def measured(perplexity: float) -> Measured:
    return Measured(Differences(0, 0, 0), perplexity, 100.0)


def test_perplexity_is_of_one_stream_from_eos(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    reference = ReferenceModel(CONFIG, weights)
    hidden, _ = reference.advance(np.concatenate([[EOS], IDS[:-1]]).astype(np.int32), np.zeros(CONFIG.state_size))
    likely = reference.log_probabilities(hidden)[np.arange(len(IDS)), IDS]
    expected = math.exp(-likely.mean())
    done: list[int] = []
    exported = build(CONFIG, weights, Precision.FLOAT32, tmp_path)
    assert perplexity(ReferenceReader(torch_model(weights)), IDS, EOS, done.append) == pytest.approx(expected, rel=1e-6)
    assert perplexity(ExportedReader(exported), IDS, EOS, done.append) == pytest.approx(expected, rel=1e-6)
    assert done == [CHUNK_TOKENS, CHUNK_TOKENS, 3] * 2


def test_a_perplexity_beyond_float64_is_an_error() -> None:
    class Hopeless:
        def read(self, ids: Ids, targets: Ids) -> Floats:
            return np.full(len(ids), -1e4, np.float32)

    with pytest.raises(ExportError, match="no finite perplexity"):
        perplexity(Hopeless(), IDS, EOS, lambda _: None)


@pytest.mark.parametrize(("precision", "least", "most"), [(Precision.FLOAT32, 0, 1e-6), (Precision.INT8, 1e-4, 0.04)])
@pytest.mark.parametrize(
    "fields", [{}, {"mogrifier_rounds": 4}, {"mogrifier_rounds": 5, "mogrifier_rank": 3, "softmaxes": 3}], ids=str
)
def test_a_faithful_export_is_accepted_with_its_differences(
    fields: dict[str, int], precision: Precision, least: float, most: float, tmp_path: Path
) -> None:
    config = config_of(**fields)
    weights = random_weights(config)
    exported = build(config, weights, precision, tmp_path, lengths=(1, 4, 16))
    check_signatures(exported, config)
    found = check(exported, precision, torch_model(weights, config))
    assert all(least <= value <= most for value in (found.hidden, found.state, found.log_probabilities))


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize(
    "changed", ["layers.0.input.levels.1.weight", "layers.1.context.weight", "layers.1.input.bias"]
)
def test_values_of_another_model_are_refused(precision: Precision, changed: str, tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    exported = build(CONFIG, weights, precision, tmp_path)
    other = weights | {changed: np.roll(weights[changed], 1, axis=0)}
    with pytest.raises(ExportError, match=f"{precision}: (hidden|state) differs from the reference by"):
        check(exported, precision, torch_model(other))


def test_a_head_of_another_model_is_refused(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    exported = build(CONFIG, weights, Precision.FLOAT32, tmp_path)
    other = weights | {"decoder.bias": weights["decoder.bias"][::-1].copy()}
    with pytest.raises(ExportError, match="float32: log_probabilities differs"):
        check(exported, Precision.FLOAT32, torch_model(other))


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    broken = weights | {"layers.1.input.bias": np.full_like(weights["layers.1.input.bias"], np.nan)}
    exported = build(CONFIG, broken, Precision.FLOAT32, tmp_path)
    with pytest.raises(ExportError, match="differs from the reference by nan%"):
        check(exported, Precision.FLOAT32, torch_model(weights))


def test_int8_results_that_depend_on_the_batch_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(CONFIG)
    exported = build(CONFIG, weights, Precision.INT8, tmp_path)
    exact = OnnxModel.advance

    def inexact(self: OnnxModel, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        hidden, after = exact(self, ids, lengths, state)
        return hidden * np.float32(1 + 1e-7 * len(ids)), after

    monkeypatch.setattr(OnnxModel, "advance", inexact)
    with pytest.raises(ExportError, match="int8: results depend on the batch"):
        check(exported, Precision.INT8, torch_model(weights))


def test_signatures_of_another_model_are_refused(tmp_path: Path) -> None:
    exported = build(CONFIG, random_weights(CONFIG), Precision.INT8, tmp_path)
    with pytest.raises(ExportError, match=r"steps-4\.onnx has inputs .* instead of"):
        check_signatures(exported, config_of(hidden_size=20))


def test_costs_are_refused_beyond_their_limits_only() -> None:
    check_perplexity(100.009, Precision.FLOAT32, 0)
    check_perplexity(100.19, Precision.INT8, 0.002)
    check_perplexity(90, Precision.INT8, 0.002)
    with pytest.raises(ExportError, match=r"int8 costs 0\.210% of perplexity, more than 0\.200%"):
        check_perplexity(100.21, Precision.INT8, 0.002)
    for value in (99.98, 100.02):
        with pytest.raises(ExportError, match="float32 changes perplexity"):
            check_perplexity(value, Precision.FLOAT32, 0.5)
