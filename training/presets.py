"""Named architectures with the recipes they are trained by.

Boundary: data only. `pru-*` and `lstm-*` are the models of the paper's Table 1 with standard dropout (three layers,
embedding 400); `small` is sized for two CPU cores, and the bundled model is one of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.config import ModelConfig
from model.errors import ConfigurationError
from training.recipe import Optimizer, Recipe


@dataclass(frozen=True)
class Preset:
    """An architecture, without the vocabulary's size, and its recipe."""

    name: str
    summary: str
    architecture: dict[str, Any]
    recipe: Recipe

    def config(self, vocabulary_size: int) -> ModelConfig:
        """The architecture for a vocabulary of the given size."""
        return ModelConfig.from_dict({**self.architecture, "vocabulary_size": vocabulary_size})


_PAPER = Recipe(optimizer=Optimizer.SGD, learning_rate=20, epochs=40, batch_size=20, bptt=35, dropout=0.5, clip=0.25)


def _paper(groups: int, levels: int, hidden_size: int) -> Preset:
    lstm = groups == levels == 1
    return Preset(
        name=f"lstm-{hidden_size}" if lstm else f"pru-g{groups}",
        summary=f"LSTM, M={hidden_size}" if lstm else f"PRU, g={groups}, K={levels}, M={hidden_size}",
        architecture={
            "embedding_size": 400,
            "hidden_size": hidden_size,
            "layers": 3,
            "groups": groups,
            "levels": levels,
            "residual": not lstm,
        },
        recipe=_PAPER,
    )


PRESETS = {
    preset.name: preset
    for preset in (
        _paper(groups=1, levels=2, hidden_size=1000),
        _paper(groups=2, levels=2, hidden_size=1200),
        _paper(groups=4, levels=2, hidden_size=1400),
        _paper(groups=1, levels=1, hidden_size=1000),
        _paper(groups=1, levels=1, hidden_size=1200),
        _paper(groups=1, levels=1, hidden_size=1400),
        Preset(
            name="small",
            summary="PRU, g=4, K=2, M=640, two layers: for a CPU",
            architecture={"embedding_size": 256, "hidden_size": 640, "layers": 2, "groups": 4, "levels": 2},
            recipe=Recipe(
                optimizer=Optimizer.SGD,
                learning_rate=20,
                epochs=9,
                batch_size=20,
                bptt=35,
                dropout=0.2,
                clip=0.25,
            ),
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of that name; `ConfigurationError` that lists them all."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigurationError(f"no preset is called {name}; there are {', '.join(PRESETS)}") from None
