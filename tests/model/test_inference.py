"""The inference form of a model, as it is and as TorchScript, against an independent float64 model."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from export.torchscript import torchscript
from model.config import ModelConfig
from model.errors import ConfigurationError
from model.inference import InferenceModel
from model.language_model import LanguageModel
from tests.export.configurations import CONFIGS, FIELDS
from tests.export.reference import ReferenceModel
from tests.export.samples import config_of, random_ids, random_states, random_weights


def inference_model(config: ModelConfig) -> InferenceModel:
    """A model of random weights."""
    model = LanguageModel(config)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in random_weights(config).items()})
    return InferenceModel(model.eval()).eval()


def scripted(model: InferenceModel) -> Any:
    """The model written as TorchScript and read again."""
    with pytest.warns(DeprecationWarning, match=r"`torch\.jit\.load` is deprecated"):
        return torch.jit.load(BytesIO(torchscript(model)))


@torch.inference_mode()
def largest_difference(model: Any, config: ModelConfig) -> float:
    """Of hidden vectors, states and log-probabilities of ragged rows from random states, from the reference's."""
    reference = ReferenceModel(config, random_weights(config))
    lengths = np.array([7, 0, 4, 1], np.int32)
    ids, states = random_ids(config, 4, 7), random_states(config, 4)
    hidden, after = model(*map(torch.from_numpy, (ids, lengths, states)))
    assert hidden.shape == (4, 7, config.embedding_size)
    differences = [0.0]
    for row, length in enumerate(lengths):
        expected, expected_state = reference.advance(ids[row, :length], states[row])
        likely = reference.log_probabilities(expected)
        differences += [
            np.abs(hidden[row, :length].numpy() - expected).max(initial=0),
            np.abs(after[row].numpy() - expected_state).max(),
            np.abs(model.log_probabilities(hidden[row, :length]).numpy() - likely).max(initial=0),
        ]
    return float(np.max(differences))


@pytest.mark.parametrize("fields", CONFIGS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_it_computes_the_model_and_so_does_its_torchscript(fields: dict[str, Any]) -> None:
    config = config_of(**fields)
    model = inference_model(config)
    assert largest_difference(model, config) <= 1e-5
    assert largest_difference(scripted(model), config) <= 1e-5


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(fields=FIELDS)
def test_torchscript_computes_whatever_a_configuration_permits(fields: dict[str, Any]) -> None:
    try:
        config = ModelConfig.from_dict(fields)
    except ConfigurationError:
        assume(False)
    assert largest_difference(scripted(inference_model(config)), config) <= 1e-5


@pytest.mark.parametrize("fields", [{}, {"mogrifier_rounds": 3, "mogrifier_rank": 2, "softmaxes": 2}], ids=str)
def test_parameters_keep_the_names_that_a_checkpoint_has(fields: dict[str, int]) -> None:
    config = config_of(**fields)
    model = inference_model(config)
    expected = {name: array.shape for name, array in random_weights(config).items()}
    for each in (model, scripted(model)):
        assert {name: tuple(parameter.shape) for name, parameter in each.named_parameters()} == expected


@torch.inference_mode()
def test_rows_that_read_nothing_keep_their_state_whatever_lies_in_the_padding() -> None:
    config = config_of()
    model = inference_model(config)
    ids, states = random_ids(config, 3, 4), torch.from_numpy(random_states(config, 3))
    lengths = torch.tensor([4, 0, 2], dtype=torch.int32)
    hidden, after = model(torch.from_numpy(ids), lengths, states)
    padded = ids.copy()
    padded[1], padded[2, 2:] = 7, 9
    other, other_after = model(torch.from_numpy(padded), lengths, states)
    assert torch.equal(after[1], states[1])
    assert torch.equal(other_after, after)
    assert torch.equal(other[2, :2], hidden[2, :2])
