"""Dynamic evaluation against its equations, with torch's own cross entropy and gradients in float64."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from model.dropout import Dropout
from model.errors import ConfigurationError, TrainingError
from model.language_model import LanguageModel
from model.pru import PRUCell
from model.vocabulary import Ids
from tests.training.conftest import config
from training import dynamic_evaluation as dynamic_module
from training.data import Data
from training.dynamic_evaluation import DynamicEvaluation, evaluate_dynamically, gradient_statistics
from training.evaluate import evaluate

Array = npt.NDArray[np.float64]


@pytest.fixture
def model(data: Data) -> LanguageModel:
    torch.manual_seed(1)
    return LanguageModel(config(data.vocabulary), Dropout.standard(0.5))


@pytest.fixture
def statistics(data: Data, model: LanguageModel) -> list[torch.Tensor]:
    return gradient_statistics(model, data.train, data.vocabulary.eos_id, 5)


def reference_gradients(
    model: LanguageModel, weights: list[Array], words: Ids, state: Array
) -> tuple[float, list[Array], Array]:
    """Mean loss of `words [B, T + 1]`, its gradients, and the state after, all in float64.

    Reads with `PRUCell` one word at a time: neither the fast recurrence nor the chunked cross entropy.
    """
    double = LanguageModel(model.config).double().eval()
    for parameter, value in zip(double.parameters(), weights, strict=True):
        parameter.data = torch.from_numpy(value.copy())
    read, rows = torch.from_numpy(words.astype(np.int64)), torch.from_numpy(state)
    losses = []
    for before, target in zip(read.t()[:-1], read.t()[1:], strict=True):
        x, after = double.embedding(before), []
        sizes = [size.outputs for size in model.config.layer_sizes]
        parts = list(rows.split([size for size in sizes for _ in "hc"], dim=-1))
        for index, layer in enumerate(double.layers):
            assert isinstance(layer, PRUCell)
            x, c = PRUCell.forward(layer, x, (parts[2 * index], parts[2 * index + 1]))
            after += [x, c]
        rows = torch.cat(after, dim=-1)
        losses.append(F.cross_entropy(F.linear(x, double.embedding.weight, double.decoder.bias), target))
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = [parameter.grad.numpy() for parameter in double.parameters() if parameter.grad is not None]
    return loss.item(), gradients, rows.detach().numpy()


def arrays(tensors: Iterable[torch.Tensor]) -> list[Array]:
    return [tensor.detach().double().numpy() for tensor in tensors]


def test_statistics_are_the_root_mean_square_of_each_gradient(
    data: Data, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module, "ROWS", 3)
    train = data.train[:40]
    stream = np.concatenate([[data.vocabulary.eos_id], train])
    rows = stream[: 3 * (len(stream) // 3)].reshape(3, -1)
    weights, state = arrays(model.parameters()), model.initial_state(3).double().numpy()
    squares = []
    for start in range(0, rows.shape[1] - 1, 4):
        _, gradients, state = reference_gradients(model, weights, rows[:, start : start + 5], state)
        squares.append([gradient**2 for gradient in gradients])
    assert len(squares) == 3
    ours = gradient_statistics(model, train, data.vocabulary.eos_id, 4)
    for index, rms in enumerate(ours):
        expected = np.sqrt(sum(square[index] for square in squares) / len(squares))
        np.testing.assert_allclose(rms.numpy(), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("lambda_", [0.0, 2e-3, 0.5])
def test_scores_equal_the_equations_while_the_weights_move(
    data: Data, model: LanguageModel, statistics: list[torch.Tensor], lambda_: float
) -> None:
    settings = DynamicEvaluation(bptt=3, lr=0.1, lambda_=lambda_, epsilon=1e-2)
    trained, rms = arrays(model.parameters()), arrays(statistics)
    mean = np.mean([values.mean() for values in rms])
    weights, state, total = [values.copy() for values in trained], model.initial_state(1).double().numpy(), 0.0
    ids = data.valid[:23]
    stream = np.concatenate([[data.vocabulary.eos_id], ids])
    for start in range(0, len(ids), 3):
        words = stream[start : start + 4]
        loss, gradients, state = reference_gradients(model, weights, words[None], state)
        total += loss * (len(words) - 1)
        for index, gradient in enumerate(gradients):
            decay = np.minimum(lambda_ * rms[index] / mean, 1)
            step = settings.lr * gradient / (rms[index] + settings.epsilon)
            weights[index] += -step + decay * (trained[index] - weights[index])
    result = evaluate_dynamically(model, ids, data.vocabulary.eos_id, statistics, settings, statistics_of="small train")
    assert result.tokens == 23
    assert result.negative_log_likelihood == pytest.approx(total, rel=1e-5)
    static = evaluate(model, ids, data.vocabulary.eos_id)
    assert abs(result.negative_log_likelihood - static.negative_log_likelihood) > 1e-3 * total


def test_with_a_learning_rate_of_0_it_is_static_evaluation(
    data: Data, model: LanguageModel, statistics: list[torch.Tensor]
) -> None:
    static = evaluate(model, data.valid, data.vocabulary.eos_id)
    result = evaluate_dynamically(
        model, data.valid, data.vocabulary.eos_id, statistics, DynamicEvaluation(lr=0), statistics_of="small train"
    )
    assert result.perplexity == pytest.approx(static.perplexity, rel=1e-6)


def test_a_text_that_repeats_itself_is_predicted_better_and_the_model_stays_as_it_was(
    data: Data, model: LanguageModel, statistics: list[torch.Tensor]
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    ids = np.tile(data.valid[:12], 10)
    static = evaluate(model, ids, data.vocabulary.eos_id)
    settings = DynamicEvaluation(lr=1e-2, epsilon=1e-2)
    first, second = (
        evaluate_dynamically(model, ids, data.vocabulary.eos_id, statistics, settings, statistics_of="small train")
        for _ in range(2)
    )
    assert first.perplexity < 0.8 * static.perplexity
    assert first == second
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_result_says_which_evaluation_it_was(
    data: Data, model: LanguageModel, statistics: list[torch.Tensor]
) -> None:
    result = evaluate_dynamically(
        model, data.valid, data.vocabulary.eos_id, statistics, DynamicEvaluation(), statistics_of="small train"
    )
    assert result.record() == {
        "tokens": len(data.valid),
        "evaluation": "dynamic",
        "parameters": {
            "bptt": 5,
            "lr": 5e-5,
            "lambda": 2e-3,
            "epsilon": 2e-5,
            "statistics_of": "small train",
        },
        "dynamic_perplexity": result.perplexity,
    }


def test_a_text_shorter_than_the_statistics_rows_is_read_in_fewer(data: Data, model: LanguageModel) -> None:
    tokens: list[int] = []
    gradient_statistics(model, data.train[:17], data.vocabulary.eos_id, 5, advance=tokens.append)
    assert tokens == [15]


def test_updates_that_diverge_end_in_an_error(data: Data, model: LanguageModel, statistics: list[torch.Tensor]) -> None:
    settings = DynamicEvaluation(lr=1e38, epsilon=1e-30)
    with pytest.raises(TrainingError, match="lower its lr"):
        evaluate_dynamically(
            model, data.valid, data.vocabulary.eos_id, statistics, settings, statistics_of="small train"
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bptt": 0}, "bptt must be at least 1"),
        ({"lr": -1.0}, "lr must be a finite number of at least 0"),
        ({"lr": math.inf}, "lr must be a finite number of at least 0"),
        ({"lr": math.nan}, "lr must be a finite number of at least 0"),
        ({"lambda_": -0.1}, "lambda must lie between 0 and 1"),
        ({"lambda_": 1.5}, "lambda must lie between 0 and 1"),
        ({"lambda_": math.nan}, "lambda must lie between 0 and 1"),
        ({"epsilon": 0.0}, "epsilon must be finite and above 0"),
        ({"epsilon": math.nan}, "epsilon must be finite and above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DynamicEvaluation(**settings)
