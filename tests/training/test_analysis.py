"""The analyses against values worked by hand, loops in float64 and finite differences."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from model.config import ModelConfig
from model.dropout import Dropout
from model.language_model import LanguageModel
from tests.source import ROOT
from tests.training.conftest import config
from training.analysis import tables
from training.analysis.attribution import Attribution, attribute
from training.analysis.coverage import coverage
from training.analysis.embedding_variance import embedding_variances, variance
from training.analysis.entropy import CONTEXTS, histogram, next_word_entropies
from training.analysis.saliency import normalised, saliency
from training.data import Data

MEMORY_OF_ENTROPIES = """
import resource
import numpy as np
from model.config import ModelConfig
from model.dropout import Dropout
from model.language_model import LanguageModel
from training.analysis.entropy import next_word_entropies

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

model = LanguageModel(ModelConfig(vocabulary_size=33278, embedding_size=256, hidden_size=640, layers=2))
ids = np.zeros(3200, np.int32)
next_word_entropies(model, ids[:128], 0)
before = peak()
next_word_entropies(model, ids, 0)
print(peak() - before)
"""
"""Prints by how many MiB memory grows from two chunks to fifty."""

LSTM = {"groups": 1, "levels": 1, "residual": False}


@pytest.fixture
def model(data: Data) -> LanguageModel:
    """A model in float64 whose predictions differ from word to word, with dropout it must not use."""
    torch.manual_seed(1)
    model = LanguageModel(config(data.vocabulary), Dropout.standard(0.5)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
        model.embedding.weight.mul_(4)
    return model


def rows(table: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.decode())))


def test_the_entropy_of_a_known_distribution_is_worked_by_hand(data: Data) -> None:
    model = LanguageModel(config(data.vocabulary))
    nn.init.zeros_(model.embedding.weight)
    ids, eos_id = data.valid[:10], data.vocabulary.eos_id
    uniform = next_word_entropies(model, ids, eos_id)
    np.testing.assert_allclose(uniform, [math.log(len(data.vocabulary))] * 10, rtol=1e-6)
    # Two words share 3/4 and 1/4, and the others have nothing.
    with torch.no_grad():
        model.decoder.bias.fill_(-1e4)
        model.decoder.bias[:2] = torch.tensor([0.75, 0.25]).log()
    by_hand = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    np.testing.assert_allclose(next_word_entropies(model, ids, eos_id), [by_hand] * 10, rtol=1e-6)


def test_entropies_are_those_of_every_context_read_one_by_one_across_chunks(data: Data, model: LanguageModel) -> None:
    ids, eos_id = data.train[: 2 * CONTEXTS + 7], data.vocabulary.eos_id
    expected, state, before = [], model.initial_state(1), eos_id
    with torch.no_grad():
        for token_id in ids.tolist():
            hidden, state = model(torch.tensor([[before]]), state)
            p = model.log_probabilities(hidden)[0, 0].exp().numpy()
            expected.append(-float(np.sum(p * np.log(p))))
            before = token_id
    assert np.ptp(expected) > 0.5
    done: list[int] = []
    entropies = next_word_entropies(model, ids, eos_id, advance=done.append)
    np.testing.assert_allclose(entropies, expected, rtol=1e-9)
    assert done == [CONTEXTS, CONTEXTS, 7]


def test_memory_does_not_grow_with_the_text() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_ENTROPIES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # Distributions of all contexts are 406 MiB; a few chunks of them 8 MiB each.
    assert int(done.stdout) < 100


def test_bins_are_23_hundredths_of_a_nat_wide_and_hold_every_entropy() -> None:
    # ln 10 = 2.303 lies in the bin that begins at 2.30, the eleventh.
    counts = histogram(np.array([0.0, -1e-7, 0.2299, 0.2301, 0.45, 0.47, 2.31, 2.6]), 10)
    assert counts.tolist() == [3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 2]


def test_the_histogram_has_a_row_a_bin_and_a_column_a_model() -> None:
    entropies = {"a": np.array([0.1, 0.3, 0.4]), "b": np.array([0.5])}
    assert tables.entropy_histogram(entropies, 2) == (
        b"from,to,a,b\n0,0.23,1,0\n0.23,0.46,2,0\n0.46,0.69,0,1\n0.69,0.92,0,0\n"
    )
    assert tables.entropy_means(entropies) == b"model,contexts,mean_entropy\na,3,0.266667\nb,1,0.5\n"


def test_variance_is_the_mean_squared_distance_to_the_mean() -> None:
    # Mean (1, 2); squared distances 5, 1 and 10.
    assert variance(torch.tensor([[0.0, 0.0], [1.0, 3.0], [2.0, 3.0]])) == pytest.approx((1 + 4 + 0 + 1 + 1 + 1) / 3)
    assert variance(torch.tensor([[3.0, 4.0]])) == 0


def test_level_1_is_the_embedding_and_level_2_what_the_pyramid_makes_of_it() -> None:
    settings = {"embedding_size": 4, "hidden_size": 4, "layers": 1, "groups": 1, "levels": 2, "vocabulary_size": 3}
    model = LanguageModel(ModelConfig.from_dict(settings))
    with torch.no_grad():
        model.embedding.weight[:2] = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 3.0, 6.0]])
    words = {"nouns": [0, 1], "verbs": [], "other": [1]}
    # Averages of three with stride 2 and a zero before the first: (0, 0) and (1, 3).
    assert [tuple(row) for row in embedding_variances(model, words)] == [
        ("nouns", 1, 2, pytest.approx((9 + 9 + 36) / 4)),
        ("nouns", 2, 2, pytest.approx((1 + 9) / 4)),
        ("other", 1, 1, 0),
        ("other", 2, 1, 0),
    ]


@pytest.mark.parametrize("transform", ["pyramidal", "linear", "grouped"])
def test_an_lstm_has_the_embedding_alone(transform: str, data: Data) -> None:
    model = LanguageModel(config(data.vocabulary, **LSTM, input_transform=transform))
    [row] = embedding_variances(model, {"nouns": [1, 2, 3]})
    assert tuple(row) == ("nouns", 1, 3, pytest.approx(variance(model.embedding.weight[1:4].detach())))


@pytest.mark.parametrize("changes", [{}, LSTM], ids=["PRU", "LSTM"])
def test_gradients_are_what_finite_differences_of_every_predicted_word_give(
    data: Data, changes: dict[str, object]
) -> None:
    torch.manual_seed(2)
    model = LanguageModel(config(data.vocabulary, **changes), Dropout.standard(0.5)).double().eval()
    ids, eos_id = data.valid[:6].tolist(), data.vocabulary.eos_id
    found = attribute(model, ids, eos_id)

    @torch.no_grad()
    def log_probabilities(embedded: torch.Tensor) -> torch.Tensor:
        hidden, _ = model.layers(embedded, model.initial_state(1))
        return model.log_probabilities(hidden[0, -1])

    embedded = model.embedding(torch.tensor([[eos_id, *ids]])).detach()
    every = log_probabilities(embedded)
    assert found.top[0] == int(every.argmax())
    expected = torch.empty_like(found.gradients_of_top)
    assert expected.shape == (5, len(ids), model.config.embedding_size)
    step = 1e-5
    for word in range(len(ids)):
        for dimension in range(model.config.embedding_size):
            nudge = torch.zeros_like(embedded)
            nudge[0, 1 + word, dimension] = step
            ahead, behind = (log_probabilities(embedded + sign * nudge)[found.top] for sign in (1, -1))
            expected[:, word, dimension] = (ahead - behind) / (2 * step)
    assert expected.abs().amax((1, 2)).min() > 1e-4
    torch.testing.assert_close(found.gradients_of_top, expected, rtol=1e-5, atol=1e-10)
    assert torch.equal(found.gradients, found.gradients_of_top[0])
    torch.testing.assert_close(saliency(found.gradients_of_top), (expected**2).sum(2), rtol=1e-4, atol=1e-14)


def test_the_five_likeliest_words_come_with_their_probabilities(data: Data, model: LanguageModel) -> None:
    found = attribute(model, data.valid[:6].tolist(), data.vocabulary.eos_id)
    hidden, _ = model(torch.tensor([[data.vocabulary.eos_id, *data.valid[:6].tolist()]]), model.initial_state(1))
    probabilities = model.log_probabilities(hidden[0, -1]).exp().tolist()
    ranked = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)[:5]
    assert found.top == ranked
    assert found.probabilities == pytest.approx([probabilities[token_id] for token_id in ranked])


def test_saliency_is_the_squared_norm_and_is_normalised_by_the_largest() -> None:
    values = saliency(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, 2.0]]))
    assert values.tolist() == [25, 0, 5]
    assert normalised(values).tolist() == pytest.approx([1, 0, 0.2])
    assert normalised(torch.zeros(3)).tolist() == [0, 0, 0]


def test_coverage_counts_what_exceeds_a_hundredth_of_the_largest_in_size() -> None:
    assert coverage(torch.tensor([[-200.0, 2.0], [2.5, -2.5], [0.0, 1.0]])) == pytest.approx(3 / 6)
    assert coverage(torch.zeros(2, 3)) == 0


def test_tables_of_gradients_have_a_row_a_word_and_a_row_a_number(data: Data) -> None:
    vocabulary = data.vocabulary
    ids = [vocabulary.id_of("the"), vocabulary.id_of("cat")]
    gradients = torch.tensor([[[3.0, -4.0], [0.0, 5.0]], [[0.0, 1.0], [2.0, 0.0]]])
    attribution = Attribution(ids, [vocabulary.id_of("sat"), vocabulary.eos_id], [0.5, 0.25], gradients)
    assert tables.saliencies({"a": [attribution, attribution]}, vocabulary).decode().splitlines()[1:6] == [
        "a,1,1,sat,1,the,25,1",
        "a,1,1,sat,2,cat,25,1",
        "a,1,2,<eos>,1,the,1,0.25",
        "a,1,2,<eos>,2,cat,4,1",
        "a,2,1,sat,1,the,25,1",
    ]
    assert [list(row.values()) for row in rows(tables.predictions({"a": [attribution]}, vocabulary))] == [
        ["a", "1", "1", "sat", "0.5"],
        ["a", "1", "2", "<eos>", "0.25"],
    ]
    assert [list(row.values()) for row in rows(tables.gradients({"a": attribution}, vocabulary))] == [
        ["a", "1", "the", "1", "3"],
        ["a", "1", "the", "2", "4"],
        ["a", "2", "cat", "1", "0"],
        ["a", "2", "cat", "2", "5"],
    ]
    assert tables.gradient_coverage({"a": attribution}) == (
        b"model,threshold,coverage,largest_gradient\na,0.01,0.75,5\n"
    )
