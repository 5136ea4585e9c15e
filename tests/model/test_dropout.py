"""What is left out while a model trains: which numbers, and that what is left is scaled."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from model.config import ModelConfig
from model.dropout import Dropout, drop, drop_words
from model.language_model import LanguageModel
from model.pru import PRULayer


def build(dropout: Dropout, **changes: object) -> LanguageModel:
    settings = {"vocabulary_size": 30, "embedding_size": 8, "hidden_size": 12, "layers": 3, "groups": 4, "levels": 2}
    torch.manual_seed(3)
    return LanguageModel(ModelConfig.from_dict(settings | changes), dropout).double()


def read(model: LanguageModel, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    ids = torch.arange(24).view(3, 8)
    hidden: Tensor = model(ids, model.initial_state(3))[0]
    return hidden


def test_a_locked_mask_is_the_same_at_all_steps_and_differs_between_rows() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(6, 5, 200), 0.3, locked=True)
    assert (dropped == dropped[:, :1]).all()
    assert not (dropped[0] == dropped[1]).all()
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert 0.2 < (dropped == 0).float().mean().item() < 0.4


def test_a_mask_that_is_not_locked_differs_from_step_to_step() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(2, 5, 200), 0.3, locked=False)
    assert not (dropped[:, 0] == dropped[:, 1]).all()


@pytest.mark.parametrize("rate", [0.25, 0.4])
def test_in_half_precision_a_locked_mask_scales_what_is_left_as_exactly_as_its_sum_can_be(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(6, 50, 400).bfloat16()
    dropped = drop(x, rate, locked=True)
    assert dropped.dtype is torch.bfloat16
    kept = dropped != 0
    ratio = dropped[kept].double().sum() / x[kept].double().sum()
    assert ratio.item() == pytest.approx(1 / (1 - rate), rel=2e-4)


def test_every_occurrence_of_a_dropped_word_goes_and_the_others_are_scaled() -> None:
    torch.manual_seed(1)
    ids = torch.randint(50, (4, 40))
    embedded = torch.rand(4, 40, 3) + 1
    dropped = drop_words(embedded, ids, 50, 0.4)
    for word in range(50):
        kept = dropped[ids == word]
        expected = embedded[ids == word]
        assert (kept == 0).all() or torch.allclose(kept, expected / 0.6)
    gone = {word for word in ids.unique().tolist() if (dropped[ids == word] == 0).all()}
    assert 8 < len(gone) < 32


@pytest.mark.parametrize("context", ["grouped", "linear", "pyramidal"])
@pytest.mark.parametrize("mogrifier_rounds", [0, 2])
def test_weight_drop_changes_the_output_while_training_alone(context: str, mogrifier_rounds: int) -> None:
    settings = {"context_transform": context, "mogrifier_rounds": mogrifier_rounds}
    whole, dropping = build(Dropout(), **settings), build(Dropout(weight=0.5), **settings)
    assert not torch.allclose(read(dropping), read(whole))
    assert torch.equal(read(dropping.eval()), read(whole.eval()))


def test_saved_weights_keep_their_names_and_values_under_weight_drop() -> None:
    whole, dropping = build(Dropout()), build(Dropout(weight=0.5))
    before = {name: tensor.clone() for name, tensor in dropping.state_dict().items()}
    read(dropping).sum().backward()
    assert list(dropping.state_dict()) == list(whole.state_dict())
    for name, tensor in dropping.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_dropped_weight_gets_no_gradient_and_the_same_mask_holds_for_all_steps() -> None:
    """With a mask for each step, every weight would be used at some of 8 steps."""
    model = build(Dropout(weight=0.5))
    read(model).square().sum().backward()
    gradient = dict(model.named_parameters())["layers.1.context.weight"].grad
    assert gradient is not None
    assert 0.3 < (gradient == 0).double().mean().item() < 0.7


def test_weight_drop_leaves_biases_and_pooling_kernels_alone() -> None:
    model = build(Dropout(weight=0.9), context_transform="pyramidal", subsampling="convolution")
    layer = next(layer for layer in model.layers if isinstance(layer, PRULayer))
    dropped = layer._context()
    kept = dict(layer.context.named_parameters())
    assert {name for name in kept if not torch.equal(dropped[name], kept[name])} == {
        "levels.0.weight",
        "levels.1.weight",
    }


@pytest.mark.parametrize("name", ["word", "input", "hidden", "output", "weight"])
def test_each_rate_acts_where_it_says_and_not_while_evaluating(name: str) -> None:
    model = build(Dropout(**{name: 0.5}))
    assert not torch.allclose(read(model, 1), read(model, 2))
    model.eval()
    assert torch.equal(read(model, 1), read(model, 2))


def test_the_output_is_dropped_after_the_state_was_taken() -> None:
    model = build(Dropout(output=0.5))
    ids, state = torch.arange(24).view(3, 8), model.initial_state(3)
    hidden, after = model(ids, state)
    assert (hidden == 0).any()
    raw, same = model.read(ids, state)
    assert torch.equal(after, same)
    assert not (raw == 0).any()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_a_dropout_rate_that_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValidationError, match="hidden"):
        Dropout(hidden=rate)
