"""Updates of training on a GPU: epochs of the paper's g=4 model, and what capturing an update as a CUDA graph saves.

Boundary: ids drawn at random, of the sizes that `benchmarks.gpu` or a rehearsal gives; rows out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.harness import Row, at_most, interleaved, milliseconds, shown
from model.config import ModelConfig
from model.language_model import LanguageModel
from training.arithmetic import multiplies_bfloat16
from training.objective import Objective
from training.presets import find_preset
from training.recipe import Recipe, build_optimizer
from training.updates import GraphedUpdates, Updates


@dataclass(frozen=True)
class Corpus:
    """A corpus's sizes, and the seconds that an epoch of it may take."""

    name: str
    words: int
    tokens: int
    bar: float


CORPORA = (Corpus("wikitext-2", 33_278, 2_088_628, 8.0), Corpus("ptb", 10_000, 929_589, 6.0))


def rows(device: torch.device, rounds: int, corpora: tuple[Corpus, ...] = CORPORA, **smaller: int) -> list[Row]:
    """Two rows a corpus; `smaller` sizes of the model are for a rehearsal."""
    found = []
    preset = find_preset("awd-pru-g4")
    for corpus in corpora:
        recipe = preset.recipe_for(corpus.name)
        config = ModelConfig.from_dict({**preset.architecture, **smaller, "vocabulary_size": corpus.words})
        actions: dict[str, Callable[[], object]] = {"one by one": _update(Updates, config, recipe, device)}
        if device.type == "cuda":
            actions["captured"] = _update(GraphedUpdates, config, recipe, device)
        seconds = interleaved(actions, rounds)
        best = min(seconds.values())
        tokens = recipe.batch_size * recipe.bptt
        found += [
            at_most(
                f"an epoch of {corpus.name} in updates of {recipe.batch_size} x {recipe.bptt}",
                f"{milliseconds(an_update=best)}, {tokens / best:,.0f} tok/s",
                corpus.tokens / tokens * best,
                corpus.bar,
                " s",
            ),
            shown(
                f"an update of {corpus.name}: launched kernel by kernel / captured",
                milliseconds(**seconds),
                seconds["one by one"] / best,
            ),
        ]
    return found


def _update(kind: type[Updates], config: ModelConfig, recipe: Recipe, device: torch.device) -> Callable[[], float]:
    """An update of a model of its own, waited for, on one batch of the recipe's size."""
    torch.manual_seed(1)
    model = LanguageModel(config, recipe.dropout)
    objective = Objective(model, recipe, bfloat16=multiplies_bfloat16(device)).to(device)
    optimizer = build_optimizer(objective.parameters(), recipe)
    updates = kind(objective, optimizer, recipe, model.initial_state(recipe.batch_size))
    ids = torch.randint(config.vocabulary_size, (recipe.batch_size, recipe.bptt + 1), device=device)
    # At a rate of nearly nothing: what is measured does not depend on it, and weights stay finite.
    return lambda: float(updates.make(ids[:, :-1], ids[:, 1:], 1e-6))
