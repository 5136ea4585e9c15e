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


@pytest.mark.parametrize(("kind", "expected"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_a_recipe_builds_its_optimizer(kind: str, expected: type[torch.optim.Optimizer]) -> None:
    optimizer = build_optimizer(torch.nn.Linear(2, 2).parameters(), recipe(optimizer=kind, weight_decay=0.1))
    assert type(optimizer) is expected
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    "changes", [{"learning_rate": math.inf}, {"betas": (0.9, math.nan)}, {"past_decode": math.inf}]
)
def test_a_recipe_holds_finite_numbers_alone(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        recipe(**changes)
