"""Learning rates by hand, and the optimisers they drive."""

import math

import pytest
import torch
from pydantic import ValidationError

from tests.training.conftest import recipe
from training.recipe import Optimizer, build_optimizer, learning_rate


def test_sgd_is_constant_and_then_falls_in_a_straight_line_to_two_percent() -> None:
    sgd = recipe(learning_rate=20, decay=0.6)
    assert [learning_rate(sgd, step, 10) for step in (0, 3)] == [20, 20]
    assert learning_rate(sgd, 4, 10) == pytest.approx(20)
    assert learning_rate(sgd, 7, 10) == pytest.approx(20 * (1 - 0.98 * 0.5))
    assert learning_rate(sgd, 10, 10) == pytest.approx(20 * 0.02)


def test_adamw_rises_over_the_warm_up_and_falls_by_half_a_cosine_to_one_percent() -> None:
    adamw = recipe(optimizer=Optimizer.ADAMW, learning_rate=1.0, warmup=0.25)
    rates = [learning_rate(adamw, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 26)
    assert rates[:25] == sorted(rates[:25])
    assert max(rates) == rates[25] == pytest.approx(1.0)
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert learning_rate(adamw, 100, 100) == pytest.approx(0.01)


def test_adam_rises_from_a_tenth_stays_and_falls_in_a_straight_line_to_one_percent() -> None:
    adam = recipe(optimizer=Optimizer.ADAM, learning_rate=1.0, warmup=0.1, decay=0.5)
    rates = [learning_rate(adam, step, 100) for step in (0, 5, 10, 30, 50, 75, 100)]
    assert rates == pytest.approx([0.1, 0.55, 1, 1, 1, 1 - 0.99 * 0.5, 0.01])


@pytest.mark.parametrize(
    ("kind", "expected"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_a_recipe_builds_its_optimizer(kind: str, expected: type[torch.optim.Optimizer]) -> None:
    optimizer = build_optimizer(torch.nn.Linear(2, 2).parameters(), recipe(optimizer=kind, weight_decay=0.1))
    assert type(optimizer) is expected
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("kind", "decay", "expected"),
    [
        # Where a gradient is nothing but the decay, Adam makes a whole step of it, however small it is.
        ("adam", 1e-6, 2 - 0.01),
        ("adamw", 1e-6, 2 * (1 - 0.01 * 1e-6)),
        ("adamw", 0.1, 2 * (1 - 0.01 * 0.1)),
        ("sgd", 1e-6, 2 * (1 - 0.01 * 1e-6)),
    ],
)
def test_weights_that_no_word_moves_decay_as_the_optimizer_says(kind: str, decay: float, expected: float) -> None:
    weight = torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    optimizer = build_optimizer([weight], recipe(optimizer=kind, learning_rate=0.01, weight_decay=decay))
    (weight * 0).sum().backward()
    optimizer.step()
    # Adam divides by the gradient's size and 1e-8 more.
    assert weight.tolist() == pytest.approx([expected] * 3, abs=1e-4 if kind == "adam" else 1e-12)


@pytest.mark.parametrize(
    "changes", [{"learning_rate": math.inf}, {"betas": (0.9, math.nan)}, {"past_decode": math.inf}]
)
def test_a_recipe_holds_finite_numbers_alone(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        recipe(**changes)
