"""Every preset: it builds, its recipes hold, it is the paper's, and its layers compute what the cell specifies."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig, Subsampling, Transform
from model.dropout import Dropout
from model.language_model import outline
from model.pru import PRU, PRUCell, PRULayer, unpack
from training.presets import PRESETS, Preset
from training.published import PUBLISHED, Section
from training.recipe import Optimizer, Recipe

TIGHT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
ALL = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)


@ALL
@pytest.mark.parametrize("corpus", ["ptb", "wikitext-2", "own"])
def test_every_preset_builds_and_its_recipe_holds_for_every_corpus(preset: Preset, corpus: str) -> None:
    model = outline(preset.config(10_000))
    assert model.embedding.weight.shape == (10_000, model.config.embedding_size)
    recipe = preset.recipe_for(corpus)
    # Copies are made without being checked: what was put into them must be what a check would have made of it.
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate(recipe.model_dump()).model_dump() == recipe.model_dump()


@ALL
def test_what_a_preset_finetunes_is_a_preset_of_the_same_architecture(preset: Preset) -> None:
    if preset.finetunes is None:
        assert not preset.name.endswith("-finetuned")
        return
    assert PRESETS[preset.finetunes].config(100) == preset.config(100)


def smaller(preset: Preset) -> ModelConfig:
    """The architecture with vectors of 32 to 48 numbers, the same at as many places as in the preset."""
    whole = preset.config(50)
    hidden = 48
    embedding = hidden if whole.embedding_size == whole.hidden_size else 32
    return ModelConfig.from_dict(whole.model_dump() | {"embedding_size": embedding, "hidden_size": hidden})


def step_by_step(stack: PRU, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The specification: each layer's cell applied to one input after the other."""
    after = []
    for layer, before in zip(stack, unpack(state, stack.config), strict=True):
        assert isinstance(layer, PRULayer)
        outputs, current = [], before
        for t in range(x.shape[1]):
            current = PRUCell.forward(layer, x[:, t], current)
            outputs.append(current[0])
        x = torch.stack(outputs, dim=1)
        after += [*current]
    return x, torch.cat(after, dim=-1)


@ALL
def test_values_and_gradients_of_its_layers_are_those_of_the_cell_step_by_step(preset: Preset) -> None:
    torch.manual_seed(3)
    config = smaller(preset)
    stack = PRU(config).double()
    x = torch.randn(2, 5, config.embedding_size, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, config.state_size, dtype=torch.float64).tanh().requires_grad_()
    results = []
    for y, after in (stack(x, state), step_by_step(stack, x, state)):
        loss = (y.cumsum(1) * 0.1).sin().sum() + after.square().sum()
        results.append([y, after, *torch.autograd.grad(loss, [x, state, *stack.parameters()])])
    for fast, specified in zip(*results, strict=True):
        torch.testing.assert_close(fast, specified, **TIGHT)
    assert all(gradient.abs().max() > 0 for gradient in results[0][2:])


PAPER_TRANSFORMS = {"LT": Transform.LINEAR, "GLT": Transform.GROUPED, "PT": Transform.PYRAMIDAL}
PAPER_SUBSAMPLING = {
    "Skip": Subsampling.SKIP,
    "Max pool": Subsampling.MAX,
    "Avg. pool": Subsampling.AVERAGE,
    "Convolution": Subsampling.CONVOLUTION,
}


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: f"{entry.preset}-{entry.data}")
def test_an_architecture_is_what_its_row_in_the_paper_says(entry: Any) -> None:
    config = PRESETS[entry.preset].config(10_000)
    said = {name: int(value) for name, value in re.findall(r"\b([gKM]) = (\d+)", entry.row)}
    if entry.row.startswith("LSTM"):
        said |= {"g": 1, "K": 1}
    match entry.section:
        case Section.STANDARD | Section.ADVANCED:
            sizes, transforms = (400, said["M"], 3), ("GLT", "PT")
        case Section.TRANSFORMATIONS:
            found = re.fullmatch(r"R[1-6]: context (\w+), input (\w+)(?: without residual)?", entry.row)
            assert found is not None
            sizes, transforms, said = (600, 600, 1), (found[1], found[2]), {"g": 4, "K": 4}
        case Section.SUBSAMPLING:
            sizes, transforms, said = (600, 600, 1), ("GLT", "PT"), {"g": 1, "K": 4}
            assert config.subsampling is PAPER_SUBSAMPLING[entry.row]
        case _:
            sizes, transforms = (600, 600, 1), ("GLT", "PT")
    assert (config.embedding_size, config.hidden_size, config.layers) == sizes
    assert (config.groups, config.levels) == (said["g"], said["K"])
    assert (config.context_transform, config.input_transform) == tuple(PAPER_TRANSFORMS[name] for name in transforms)
    # One group and one level is the paper's LSTM, which has no residual.
    assert config.residual == ("without residual" not in entry.row and (said["g"], said["K"]) != (1, 1))


@pytest.mark.parametrize(
    ("preset", "unit"),
    # Table 3: parameters of the recurrent unit, in millions, as they are printed. What it prints of a grouped context
    # (R2 and R3) does not follow from the paper's own equations.
    [("r1", "2.9"), ("r4", "2.5"), ("r5", "2.1"), ("r6", "2.5")],
)
def test_transformations_have_the_parameters_of_table_3(preset: str, unit: str) -> None:
    model = outline(PRESETS[f"table3-{preset}"].config(10_000))
    assert f"{sum(p.numel() for p in model.layers.parameters()) / 1e6:.1f}" == unit


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: f"{entry.preset}-{entry.data}")
def test_models_of_the_paper_are_trained_as_its_section_says(entry: Any) -> None:
    recipe = PRESETS[entry.preset].recipe_for(entry.data)
    assert (recipe.learning_rate, recipe.clip, recipe.weight_decay, recipe.bptt) == (30, 0.25, 1.2e-6, 70)
    assert (recipe.epochs, recipe.batch_size) == {"ptb": (500, 20), "wikitext-2": (750, 80)}[entry.data]
    finetuned = entry.row.endswith("-finetuned")
    assert recipe.optimizer is (Optimizer.ASGD if finetuned else Optimizer.NT_ASGD)
    assert recipe.variable_bptt
    assert (recipe.activation, recipe.temporal) == (2, 1)
    if entry.section is Section.ADVANCED:
        input_, hidden = {"ptb": (0.4, 0.25), "wikitext-2": (0.65, 0.2)}[entry.data]
        dropped = Dropout(word=0.1, input=input_, hidden=hidden, output=0.4, weight=0.5, locked=True)
        assert recipe.dropout == dropped
    else:
        assert recipe.dropout == Dropout(input=0.5, hidden=0.5, output=0.5)


@pytest.mark.parametrize("corpus", ["ptb", "wikitext-2"])
@pytest.mark.parametrize("preset", ["pru-g4", "awd-pru-g4"])
def test_one_cycle_changes_the_schedule_and_how_much_is_regularised_alone(preset: str, corpus: str) -> None:
    whole, cycle = PRESETS[preset], PRESETS[f"{preset}-one-cycle"]
    assert cycle.architecture == whole.architecture
    recipe = cycle.recipe_for(corpus)
    # The decay of the whole schedule regularises only as a part of Adam's gradient.
    assert (recipe.optimizer, recipe.weight_decay) == (Optimizer.ADAM, whole.recipe.weight_decay)
    dropout = whole.recipe_for(corpus).dropout
    published = {"input": 0.6} if (preset, corpus) == ("awd-pru-g4", "wikitext-2") else {}
    assert recipe.dropout == dropout.model_copy(update=published)
