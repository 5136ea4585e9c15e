"""Settings of a preset changed from the command line: `recipe.NAME=VALUE` and `model.NAME=VALUE`.

Boundary: words in, an architecture and a recipe out. Whether the architecture can be built is `model.config`'s matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from model.config import ModelConfig
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
        known = ModelConfig.model_fields if part == "model" else Recipe.model_fields
        if names[0] not in known:
            raise _unknown([part, names[0]], known)
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
        if first["type"] == "extra_forbidden":
            beside: Any = recipe.model_dump(mode="json")
            for step in first["loc"][:-1]:
                beside = beside[step]
            raise _unknown(["recipe", *map(str, first["loc"])], beside) from None
        raise ConfigurationError(f"recipe.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return whole["model"], changed


def nearest(name: str, names: Iterable[str]) -> str:
    """What somebody may have meant by `name`, as part of a message; nothing where none of `names` is like it."""
    near = get_close_matches(name, names, n=3)
    return f" (near it: {', '.join(near)})" if near else ""


def _unknown(path: Sequence[str], names: Iterable[str]) -> ConfigurationError:
    """The error of a setting that there is not; `names` are those beside it."""
    return ConfigurationError(
        f"there is no setting {'.'.join(path)}{nearest(path[-1], names)}; `pru presets --json` lists all"
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
