"""`python -m benchmarks.training [--rounds N] [--out FILE]`: one update of training, by the form of its recurrence.

The model as it trains against the same model whose recurrence is a scripted loop over steps.

Boundary: the paper's g=4 model with the Penn Treebank's number of words, ids drawn at random, one batch of 20 x 35.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.grouped_lstm import grouped_lstm
from benchmarks.harness import Row, at_least, interleaved, milliseconds, record, show, shown
from model.language_model import LanguageModel
from model.pru import PRULayer, State
from training.arithmetic import multiplies_bfloat16
from training.memory import keep_freed_memory
from training.objective import Objective
from training.presets import find_preset
from training.recipe import build_optimizer

CPU = torch.device("cpu")
THREADS = 2
WORDS = 10_000
TITLE = "training of g=4 K=2 M=1400 V=10,000"
Form = Callable[[PRULayer, Tensor, State], tuple[Tensor, State]]


def rows(rounds: int) -> list[Row]:
    """An update with each form of the recurrence."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    scripted = _scripted()

    def step_by_step(layer: PRULayer, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, h, c = scripted(layer.from_input(x), layer.context.weight, layer.context.bias, *state)
        return y, (h, c)

    def operators(layer: PRULayer, x: Tensor, state: State) -> tuple[Tensor, State]:
        context = dict(layer.context.named_parameters())
        y, c = grouped_lstm(layer.from_input, context["weight"], context["bias"], x, *state)
        return y, (y[:, -1].to(c.dtype), c)

    forms: dict[str, Form] = {"grouped": PRULayer.forward, "scripted loop": step_by_step, "LSTM operators": operators}
    actions: dict[str, Callable[[], object]] = {name: _update(form) for name, form in forms.items()}
    seconds = interleaved(actions, rounds)
    tokens = 20 * 35 / seconds["grouped"]
    products = "bfloat16" if multiplies_bfloat16(CPU) else "float32"
    return [
        at_least(
            f"an update, 20 x 35, {products}: scripted loop over steps / grouped",
            f"{milliseconds(scripted_loop=seconds['scripted loop'], grouped=seconds['grouped'])}, {tokens:,.0f} tok/s",
            seconds["scripted loop"] / seconds["grouped"],
            1.3,
        ),
        shown(
            "the same: one LSTM operator a group / grouped",
            milliseconds(operators=seconds["LSTM operators"], grouped=seconds["grouped"]),
            seconds["LSTM operators"] / seconds["grouped"],
        ),
    ]


def _update(form: Form) -> Callable[[], None]:
    """An update of a model of its own whose layers run in the given form."""

    class Layer(PRULayer):
        def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
            return form(self, x, state)

    preset = find_preset("pru-g4-short")
    torch.manual_seed(1)
    model = LanguageModel(preset.config(WORDS), preset.recipe.dropout)
    objective = Objective(model, preset.recipe, bfloat16=multiplies_bfloat16(CPU))
    for layer in objective.model.layers:
        layer.__class__ = Layer
    optimizer = build_optimizer(objective.parameters(), preset.recipe)
    ids = torch.randint(WORDS, (preset.recipe.batch_size, preset.recipe.bptt + 1))
    state = objective.model.initial_state(len(ids))

    def update() -> None:
        optimizer.zero_grad()
        objective(ids[:, :-1], ids[:, 1:], state).objective.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), preset.recipe.clip)
        optimizer.step()

    return update


def _scripted() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Eq. 6 over all steps as a TorchScript function, the way such units were trained before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # It is deprecated; that is what is compared with.
        return torch.jit.script(_loop)


def _loop(pre: Tensor, weight: Tensor, bias: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`pre [B, T, 4, M]`, `weight [4, g, m, m]`, `bias [4, M]`; h of every step `[B, T, M]`, and both last states."""
    groups = weight.size(1)
    outputs: list[Tensor] = []
    for part in pre.unbind(1):
        grouped = torch.einsum("bgn,vgmn->bvgm", h.view(h.size(0), groups, -1).to(weight.dtype), weight).flatten(2)
        gates = (part + grouped + bias).unbind(1)
        c = torch.sigmoid(gates[1]) * c + torch.sigmoid(gates[0]) * torch.tanh(gates[2])
        h = torch.sigmoid(gates[3]) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, dim=1), h, c


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved updates of every form")
    parser.add_argument("--out", type=Path, help="JSON file for the rows, with what machine they are of")
    options = parser.parse_args()
    tables = {TITLE: rows(options.rounds)}
    show(TITLE, tables[TITLE], Console())
    if options.out:
        record(options.out, tables)


if __name__ == "__main__":
    main()
