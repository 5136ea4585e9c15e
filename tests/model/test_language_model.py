"""The language model: sizes against the published ones, and what its softmax and dropout do."""

import pytest
import torch

from model.config import ModelConfig
from model.dropout import Dropout
from model.language_model import LanguageModel

NONE = Dropout()


def build(dropout: Dropout = NONE, **changes: object) -> LanguageModel:
    settings = {"vocabulary_size": 30, "embedding_size": 8, "hidden_size": 12, "layers": 3, "groups": 4, "levels": 2}
    return LanguageModel(ModelConfig.from_dict(settings | changes), dropout)


def count(**settings: object) -> int:
    defaults = {"vocabulary_size": 10_000, "embedding_size": 400, "layers": 3}
    with torch.device("meta"):
        return sum(p.numel() for p in LanguageModel(ModelConfig.from_dict(defaults | settings)).parameters())


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        ({"groups": 1, "levels": 2, "hidden_size": 1000}, "18.97"),
        ({"groups": 2, "levels": 2, "hidden_size": 1200}, "18.51"),
        ({"groups": 4, "levels": 2, "hidden_size": 1400}, "18.90"),
        ({"groups": 1, "levels": 1, "hidden_size": 1000}, "19.87"),
        ({"groups": 1, "levels": 1, "hidden_size": 1200}, "25.79"),
        ({"groups": 1, "levels": 1, "hidden_size": 1400}, "32.68"),
    ],
)
def test_parameter_counts_are_those_of_the_released_models(settings: dict[str, object], millions: str) -> None:
    assert f"{count(**settings) / 1e6:.2f}" == millions


def test_the_four_group_model_has_28_million_parameters_on_wikitext_2() -> None:
    assert f"{count(vocabulary_size=33_278, groups=4, levels=2, hidden_size=1400) / 1e6:.1f}" == "28.2"


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        ({"input_transform": "linear", "context_transform": "linear"}, "2.88"),
        ({"levels": 4, "context_transform": "linear"}, "2.49"),
        ({"levels": 4, "context_transform": "pyramidal"}, "2.09"),
    ],
)
def test_one_layer_ablations_have_the_recurrent_weights_of_table_3(settings: dict[str, object], millions: str) -> None:
    config = ModelConfig.from_dict(
        {"vocabulary_size": 10_000, "embedding_size": 600, "hidden_size": 600, "layers": 1, "groups": 1} | settings
    )
    with torch.device("meta"):
        model = LanguageModel(config)
    weights = sum(p.numel() for name, p in model.layers.named_parameters() if not name.endswith("bias"))
    assert f"{weights / 1e6:.2f}" == millions


def test_probabilities_come_from_the_tied_embedding_and_sum_to_one() -> None:
    model = build().double()
    hidden, state = model(torch.tensor([[3, 1, 4], [1, 5, 9]]), model.initial_state(2))
    assert hidden.shape == (2, 3, 8)
    assert state.shape == (2, model.config.state_size)
    log_probabilities = model.log_probabilities(hidden)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))
    logits = hidden @ model.embedding.weight.T + model.decoder.bias
    torch.testing.assert_close(log_probabilities, logits - logits.logsumexp(-1, keepdim=True))


def test_rows_of_a_batch_do_not_affect_one_another() -> None:
    model = build().double()
    ids = torch.randint(30, (4, 6))
    together, states = model(ids, model.initial_state(4))
    alone, state = model(ids[2:3], model.initial_state(1))
    torch.testing.assert_close(together[2:3], alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(states[2:3], state, rtol=1e-12, atol=1e-12)


def test_dropout_acts_while_training_and_not_while_evaluating() -> None:
    model = build(Dropout.standard(0.5))
    ids, state = torch.randint(30, (2, 50)), model.initial_state(2)
    torch.manual_seed(0)
    dropped = model(ids, state)[0]
    kept = model.eval()(ids, state)[0]
    zeros = (dropped == 0).float().mean().item()
    assert 0.4 < zeros < 0.6
    assert (kept != 0).all()
    torch.testing.assert_close(kept, model(ids, state)[0])


def test_a_mixture_of_softmaxes_is_the_weighted_sum_of_their_probabilities() -> None:
    model = build(softmaxes=3).double()
    model.decoder.bias.data.normal_()
    hidden = torch.randn(4, 8, dtype=torch.float64)
    weights = torch.softmax(hidden @ model.decoder.prior.weight.T, -1)
    expected = torch.zeros(4, 30, dtype=torch.float64)
    for k in range(3):
        rows = slice(8 * k, 8 * (k + 1))
        latent = torch.tanh(hidden @ model.decoder.latent.weight[rows].T + model.decoder.latent.bias[rows])
        expected += weights[:, k, None] * torch.softmax(latent @ model.embedding.weight.T + model.decoder.bias, -1)
    torch.testing.assert_close(model.log_probabilities(hidden).exp(), expected)
    torch.testing.assert_close(expected.sum(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("softmaxes", [1, 3])
def test_a_temperature_divides_the_logits_of_every_softmax(softmaxes: int) -> None:
    model = build(softmaxes=softmaxes).double()
    model.decoder.bias.data.normal_()
    hidden = torch.randn(4, 8, dtype=torch.float64)
    log_weights, latent = model.decoder.mixture(hidden)
    logits = latent @ model.embedding.weight.T + model.decoder.bias
    expected = (log_weights.exp()[..., None] * torch.softmax(logits / 1.7, -1)).sum(-2)
    torch.testing.assert_close(model.log_probabilities(hidden, 1.7).exp(), expected)
