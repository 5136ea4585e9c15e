"""Settings of a preset changed by `--set`: what they may be, and what a wrong one is told."""

from __future__ import annotations

from typing import Any

import pytest

from model.config import ModelConfig
from model.errors import ConfigurationError
from tests.training.conftest import recipe
from training.recipe import Optimizer, Recipe
from training.settings import with_settings

ARCHITECTURE = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}


def changed(*settings: str) -> tuple[dict[str, Any], Recipe]:
    return with_settings(ARCHITECTURE, recipe(), settings)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("recipe.clip=0.5", recipe(clip=0.5)),
        ("recipe.optimizer=nt-asgd", recipe(optimizer=Optimizer.NT_ASGD)),
        ('recipe.optimizer="nt-asgd"', recipe(optimizer=Optimizer.NT_ASGD)),
        ("recipe.variable_bptt=true", recipe(variable_bptt=True)),
        ("recipe.betas=[0.7, 0.95]", recipe(betas=(0.7, 0.95))),
        ("recipe.learning_rate=1e-3", recipe(learning_rate=0.001)),
        (
            'recipe.dropout={"hidden": 0.3, "locked": true}',
            recipe().model_copy(update={"dropout": type(recipe().dropout)(hidden=0.3, locked=True)}),
        ),
    ],
)
def test_a_value_is_json_or_a_plain_word(setting: str, expected: Recipe) -> None:
    assert changed(setting) == (ARCHITECTURE, expected)


def test_a_path_changes_one_setting_and_leaves_those_beside_it() -> None:
    before = recipe()
    architecture, after = changed("recipe.dropout.hidden=0.3", "model.layers=3", "model.subsampling=max")
    assert after == before.model_copy(update={"dropout": before.dropout.model_copy(update={"hidden": 0.3})})
    assert architecture == ARCHITECTURE | {"layers": 3, "subsampling": "max"}
    assert ARCHITECTURE["layers"] == 2


def test_of_two_settings_of_one_name_the_later_wins() -> None:
    architecture, after = changed("recipe.epochs=3", "model.layers=3", "recipe.epochs=7", "model.layers=4")
    assert (after.epochs, architecture["layers"]) == (7, 4)


def test_without_settings_nothing_changes() -> None:
    assert changed() == (ARCHITECTURE, recipe())


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("recipe.width=3", r"there is no setting recipe\.width; `pru presets --json` lists all"),
        ("recipe.dropuot=0.1", r"there is no setting recipe\.dropuot \(near it: dropout\); `pru presets --json`"),
        ("recipe.dropuot.hidden=0.1", r"there is no setting recipe\.dropuot \(near it: dropout\)"),
        ("recipe.dropout.depth=0.1", r"there is no setting recipe\.dropout\.depth; `pru"),
        ("recipe.dropout.hiden=0.1", r"there is no setting recipe\.dropout\.hiden \(near it: hidden\); `pru"),
        ('recipe.dropout={"hiden": 0.1}', r"there is no setting recipe\.dropout\.hiden \(near it: hidden\); `pru"),
        ("model.width=3", r"there is no setting model\.width"),
        ("model.softmax=3", r"there is no setting model\.softmax \(near it: softmaxes\); `pru"),
        ("recipe.dropout.hidden=1", r"recipe\.dropout\.hidden: Input should be less than 1"),
        ("recipe.dropout=0.3", r"recipe\.dropout: "),
        ("recipe.epochs=2.5", r"recipe\.epochs: Input should be a valid integer"),
        ("recipe.epochs=many", r"recipe\.epochs: Input should be a valid integer"),
        ("recipe.epochs=", r"recipe\.epochs: Input should be a valid integer"),
        ("recipe.clip=-1", r"recipe\.clip: Input should be greater than 0"),
        ("recipe.clip=inf", r"recipe\.clip: Input should be a finite number"),
        ("recipe.clip=Infinity", r"recipe\.clip: Input should be a finite number"),
        ("recipe.clip=nan", r"recipe\.clip: "),
        ("recipe.betas=[0.5, 1e999]", r"recipe\.betas\.1: Input should be a finite number"),
        ("recipe.betas=[0.9, 1.5]", r"recipe\.betas\.1: Input should be less than 1"),
        ("recipe.optimizer=lion", r"recipe\.optimizer: Input should be 'adam', 'adamw', "),
        ("recipe.betas.0=0.5", r"--set recipe\.betas\.0=0\.5: recipe has no settings under betas"),
        ("recipe.drop.hidden=0.5", r"there is no setting recipe\.drop \(near it: dropout\)"),
        ("recipe.clip", r"--set recipe\.clip: write recipe\.NAME=VALUE"),
        ("recipe=3", r"--set recipe=3: write recipe\.NAME=VALUE"),
        ("clip=3", r"--set clip=3: write recipe\.NAME=VALUE"),
        ("", r"--set : write recipe\.NAME=VALUE"),
        ("model.vocabulary_size=9", r"--set model\.vocabulary_size=9: the text decides that"),
        ("recipe.epochs=" + "[" * 100_000, r"recipe\.epochs: Input should be a valid integer"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_in_one_line(setting: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as error:
        changed(setting)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.groups=3", "groups=3"),
        ("model.layers=many", "layers"),
        ("model.subsampling=median", "subsampling"),
    ],
)
def test_a_wrong_setting_of_the_model_is_refused_where_the_model_is_configured(setting: str, named: str) -> None:
    architecture, _ = changed(setting)
    with pytest.raises(ConfigurationError, match=named):
        ModelConfig.from_dict({**architecture, "vocabulary_size": 10})
