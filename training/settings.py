"""Settings of a preset changed from the command line: `recipe.NAME=VALUE` and `model.NAME=VALUE`.

Boundary: words in, an architecture and a recipe out. Whether the architecture can be built is `model.config`'s matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from model.errors import ConfigurationError
from training.recipe import Recipe


def with_settings(
    architecture: Mapping[str, Any], recipe: Recipe, settings: Sequence[str]
) -> tuple[dict[str, Any], Recipe]:
    """Architecture and recipe with each of `settings` applied, in order.

    A name may be a path (`recipe.dropout.hidden`); a value is JSON, or else a plain word. Raises `ConfigurationError`
    that names the setting.
    """
    whole: dict[str, Any] = {"model": dict(architecture), "recipe": recipe.model_dump(mode="json")}
    for setting in settings:
        path, equals, value = setting.partition("=")
        part, *names = path.split(".")
        if not equals or part not in whole or not names:
            raise ConfigurationError(f"--set {setting}: write recipe.NAME=VALUE or model.NAME=VALUE")
        if path == "model.vocabulary_size":
            raise ConfigurationError(f"--set {setting}: the text decides that; --min-count and --max-vocab limit it")
        inner = whole[part]
        for name in names[:-1]:
            inner = inner.get(name)
            if not isinstance(inner, dict):
                raise ConfigurationError(f"--set {setting}: {part} has no settings under {name}")
        inner[names[-1]] = _value(value)
    try:
        changed = Recipe.model_validate(whole["recipe"])
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"recipe.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return whole["model"], changed


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
