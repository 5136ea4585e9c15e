"""Named architectures with the recipes they are trained by: the paper's tables and figures, and models for CPUs.

Boundary: data only. "Section" and "Table" are of Mehta et al. 2018, which follows the training of Merity et al. 2018
(AWD-LSTM). `small` is sized for two CPU cores, and the bundled model is one of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.config import ModelConfig
from model.dropout import Dropout
from model.errors import ConfigurationError
from training.recipe import Optimizer, Recipe
from training.settings import nearest


@dataclass(frozen=True)
class Preset:
    """An architecture, without the vocabulary's size, and its recipe."""

    name: str
    summary: str
    architecture: Mapping[str, Any]
    recipe: Recipe
    by_corpus: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a corpus, by its name, changes in the recipe."""
    finetunes: str | None = None
    """The preset whose checkpoints it starts from."""

    def config(self, vocabulary_size: int) -> ModelConfig:
        """The architecture for a vocabulary of the given size."""
        return ModelConfig.from_dict({**self.architecture, "vocabulary_size": vocabulary_size})

    def recipe_for(self, corpus: str | None) -> Recipe:
        """The recipe for a known corpus, by its name; `None` for other text, whatever it is called."""
        return Recipe.model_validate(self.recipe.model_dump() | dict(self.by_corpus.get(corpus or "", {})))


_STANDARD = Recipe(
    optimizer=Optimizer.NT_ASGD,
    learning_rate=30,
    epochs=500,
    batch_size=20,
    bptt=70,
    variable_bptt=True,
    dropout=Dropout.standard(0.5),
    activation=2,
    temporal=1,
    clip=0.25,
    weight_decay=1.2e-6,
)
"""Section 4.1: the training of AWD-LSTM with standard dropout, activations regularised as the released code does."""
_STANDARD_BY_CORPUS = {"wikitext-2": {"batch_size": 80, "epochs": 750}}

_AWD_DROPOUT = Dropout(word=0.1, input=0.4, hidden=0.25, output=0.4, weight=0.5, locked=True)
_AWD = _STANDARD.model_copy(update={"dropout": _AWD_DROPOUT})
_AWD_BY_CORPUS = {
    "wikitext-2": {
        "batch_size": 80,
        "epochs": 750,
        "dropout": _AWD_DROPOUT.model_copy(update={"input": 0.65, "hidden": 0.2}),
    }
}
_ONE_CYCLE = {
    "optimizer": Optimizer.ADAM,
    "learning_rate": 5e-3,
    "betas": (0.7, 0.99),
    "warmup": 1 / 12,
    "decay": 0.5,
    "epochs": 100,
    "batch_size": 40,
    "activation": 1.8,
    "temporal": 1.5,
    "clip": 0.12,
    "partial_shuffle": True,
}
"""After Gugger and Howard 2018, who train an AWD-LSTM on WikiText-2 in 90 epochs; beta1 stays at its lowest, 0.7. Their
weight of AR, 3, is of the output before its dropout, which is 1.8 of the output after it."""
_ONE_CYCLE_BY_CORPUS = {"wikitext-2": {"batch_size": 80, "epochs": 90}}
_AWD_ONE_CYCLE_BY_CORPUS = {
    "wikitext-2": {
        **_ONE_CYCLE_BY_CORPUS["wikitext-2"],
        "dropout": _AWD_DROPOUT.model_copy(update={"input": 0.6, "hidden": 0.2}),
    }
}
_SHORT = Recipe(
    optimizer=Optimizer.SGD,
    learning_rate=20,
    epochs=6,
    batch_size=20,
    bptt=35,
    dropout=Dropout.standard(0.2),
    clip=0.25,
)
"""For CPUs: the few epochs that they can do, at a rate that falls to almost nothing."""


_SMALL_FINETUNING = {
    "learning_rate": 10,
    "decay": 1.0,
    "epochs": 6,
    "dropout": Dropout.standard(0.3),
    "partial_shuffle": True,
}
"""A second, lower cycle with more dropout."""


def _three_layers(groups: int, levels: int, hidden_size: int) -> dict[str, Any]:
    """A model of Table 1. Without groups and levels it is an LSTM."""
    return {
        "embedding_size": 400,
        "hidden_size": hidden_size,
        "layers": 3,
        "groups": groups,
        "levels": levels,
        "residual": groups > 1 or levels > 1,
    }


def _one_layer(groups: int, levels: int, **changes: Any) -> dict[str, Any]:
    """A model of section 4.4."""
    sizes = {"embedding_size": 600, "hidden_size": 600, "layers": 1, "groups": groups, "levels": levels}
    return sizes | {"residual": groups > 1 or levels > 1} | changes


_LSTMS = {f"lstm-{size}": (f"LSTM, M={size}", _three_layers(1, 1, size)) for size in (1000, 1200, 1400)}
_PRUS = {
    f"pru-g{groups}": (f"PRU, g={groups}, K=2, M={size}", _three_layers(groups, 2, size))
    for groups, size in ((1, 1000), (2, 1200), (4, 1400))
}
_SMALL = {"embedding_size": 256, "hidden_size": 640, "layers": 2, "groups": 4, "levels": 2}
_TRANSFORMS = {
    "r1": ("linear", "linear", True),
    "r2": ("grouped", "grouped", True),
    "r3": ("grouped", "pyramidal", True),
    "r4": ("linear", "pyramidal", True),
    "r5": ("pyramidal", "pyramidal", True),
    "r6": ("linear", "pyramidal", False),
}
"""Context transform, input transform and residual of each row of Table 3."""


def _table_1() -> list[Preset]:
    standard = [
        Preset(name, f"{model}, standard dropout", architecture, _STANDARD, _STANDARD_BY_CORPUS)
        for name, (model, architecture) in (_LSTMS | _PRUS).items()
    ]
    advanced = [
        Preset(f"awd-{name}", f"AWD-{model}", architecture, _AWD, _AWD_BY_CORPUS)
        for name, (model, architecture) in _PRUS.items()
    ]
    model, architecture = _PRUS["pru-g4"]
    finetuned = Preset(
        "awd-pru-g4-finetuned",
        f"AWD-{model}, finetuned",
        architecture,
        _AWD.model_copy(update={"optimizer": Optimizer.ASGD}),
        _AWD_BY_CORPUS,
        finetunes="awd-pru-g4",
    )
    one_cycles = [
        Preset(
            "pru-g4-one-cycle",
            f"{model}, standard dropout, one cycle",
            architecture,
            _STANDARD.model_copy(update=_ONE_CYCLE),
            _ONE_CYCLE_BY_CORPUS,
        ),
        Preset(
            "awd-pru-g4-one-cycle",
            f"AWD-{model}, one cycle",
            architecture,
            _AWD.model_copy(update=_ONE_CYCLE),
            _AWD_ONE_CYCLE_BY_CORPUS,
        ),
    ]
    return [*standard, *advanced, finetuned, *one_cycles]


def _ablations() -> list[Preset]:
    table_3 = [
        Preset(
            f"table3-{row}",
            f"context {context}, input {input_}{'' if residual else ', no residual'}",
            _one_layer(4, 4, context_transform=context, input_transform=input_, residual=residual),
            _STANDARD,
            _STANDARD_BY_CORPUS,
        )
        for row, (context, input_, residual) in _TRANSFORMS.items()
    ]
    # The paper gives 3 as the width of every average of this table.
    table_4 = [
        Preset(
            f"table4-{kind}",
            f"sub-sampling by {kind}, g=1, K=4",
            _one_layer(1, 4, subsampling=kind, average_kernels="paper"),
            _STANDARD,
            _STANDARD_BY_CORPUS,
        )
        for kind in ("skip", "max", "average", "convolution")
    ]
    figure_5 = [
        Preset(
            f"figure5-g{groups}-k{levels}",
            f"one layer, g={groups}, K={levels}",
            _one_layer(groups, levels),
            _STANDARD,
            _STANDARD_BY_CORPUS,
        )
        for groups in (1, 2, 4)
        for levels in (1, 2, 3, 4)
    ]
    return [*table_3, *table_4, *figure_5]


def _for_cpus() -> list[Preset]:
    short = [
        Preset(f"{name}-short", f"{model}, few epochs", architecture, _SHORT)
        for name, (model, architecture) in (_LSTMS | _PRUS).items()
        if name in ("lstm-1000", "pru-g4")
    ]
    small = Preset("small", "PRU, g=4, K=2, M=640, two layers", _SMALL, _SHORT.model_copy(update={"epochs": 9}))
    finetuned = Preset(
        "small-finetuned",
        f"{small.summary}, finetuned",
        _SMALL,
        _SHORT.model_copy(update=_SMALL_FINETUNING),
        finetunes="small",
    )
    return [*short, small, finetuned]


PRESETS = {preset.name: preset for preset in (*_table_1(), *_ablations(), *_for_cpus())}


def find_preset(name: str) -> Preset:
    """The preset of that name; `ConfigurationError` that names those like it."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigurationError(
            f"no preset is called {name}{nearest(name, PRESETS)}; `pru presets` lists all"
        ) from None
