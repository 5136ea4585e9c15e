"""`python -m benchmarks.gpu`: the fused kernels on a GPU beside cuDNN's LSTMs and what memory allows, and training.

Boundary: the paper's WikiText-2 model (g=4 K=2 M=1400 E=400 V=33,278) with random weights, in bfloat16; cuDNN's in
float16. Prints a table and writes `benchmarks/results/<device>.json`. With `--rehearse` it goes through the same
motions with a tiny model on the CPU, where nothing it could print would mean anything.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks import gpu_training
from benchmarks.harness import Row, at_least, at_most, interleaved, show, shown
from model.config import ModelConfig
from model.files import write_json
from model.kernels.forms import forms_for
from model.kernels.fused import FusedModel, captured, place
from model.kernels.weights import FusedWeights, pack
from model.language_model import LanguageModel

RESULTS = Path(__file__).parent / "results"
Action = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """What is measured where. `runs` of an action are put on the device before it is waited for."""

    device: torch.device
    dtype: torch.dtype
    rival: torch.dtype
    """The LSTMs' type: cuDNN has its persistent kernels, its fastest, in float16 alone."""
    config: ModelConfig
    steps: int
    batches: tuple[int, ...]
    rows: int
    padded: int
    copied: int
    square: int
    runs: int
    rounds: int

    def seconds(self, actions: dict[str, Action]) -> dict[str, float]:
        """Median seconds of one run of each action."""

        def many(action: Action) -> Action:
            def run() -> None:
                with torch.inference_mode():
                    for _ in range(self.runs):
                        action()
                if self.device.type == "cuda":
                    torch.cuda.synchronize()

            return run

        times = interleaved({name: many(action) for name, action in actions.items()}, self.rounds)
        return {name: value / self.runs for name, value in times.items()}

    def graphed(self, action: Action) -> Action:
        """The action as a graph where there is a GPU."""
        if self.device.type != "cuda":
            return action
        with torch.inference_mode():
            return captured(action, self.device).replay

    def lstm(self, inputs: int, outputs: int) -> nn.LSTM:
        """cuDNN's LSTM where there is a GPU, torch's elsewhere."""
        return nn.LSTM(inputs, outputs, batch_first=True).to(self.device, self.rival).eval()

    def draw(self, *shape: int) -> Tensor:
        """Random vectors of the LSTMs' type."""
        return torch.randn(*shape, device=self.device, dtype=self.rival)


def paper() -> Setting:
    """The paper's model on the current GPU."""
    config = ModelConfig(vocabulary_size=33_278, embedding_size=400, hidden_size=1400, layers=3)
    return Setting(
        torch.device("cuda"),
        torch.bfloat16,
        torch.float16,
        config,
        128,
        (1, 32, 256),
        256,
        384,
        1 << 30,
        8192,
        runs=20,
        rounds=9,
    )


def rehearsal() -> Setting:
    """A model so small that the CPU is done with it at once."""
    config = ModelConfig(vocabulary_size=40, embedding_size=16, hidden_size=24, layers=3)
    return Setting(
        torch.device("cpu"), torch.float32, torch.float32, config, 3, (1, 2), 2, 8, 1 << 10, 16, runs=1, rounds=1
    )


def measure(setting: Setting) -> list[Row]:
    """Every comparison."""
    torch.manual_seed(1)
    weights = pack(LanguageModel(setting.config), setting.dtype)
    model = FusedModel(weights, setting.device)
    bandwidth, rate = device_limits(setting)
    rows = decode(setting, model, weights, bandwidth)
    for batch in setting.batches:
        rows += sequence(setting, weights, batch, bandwidth)
    return [*rows, scoring(setting, model, weights, rate)]


def device_limits(setting: Setting) -> tuple[float, float]:
    """Measured bytes a second of a copy, read and written, and operations a second of a square product."""
    source = torch.zeros(setting.copied, dtype=torch.uint8, device=setting.device)
    target, square = torch.empty_like(source), setting.draw(setting.square, setting.square)
    times = setting.seconds({"copy": lambda: target.copy_(source), "product": lambda: square @ square})
    return 2 * setting.copied / times["copy"], 2 * setting.square**3 / times["product"]


def decode(setting: Setting, model: FusedModel, weights: FusedWeights, bandwidth: float) -> list[Row]:
    """One token at batch 1: the layers alone, and with the 5 likeliest next words."""
    ids = torch.zeros(1, dtype=torch.int64, device=setting.device)
    state, after = (torch.zeros(1, model.state_size, device=setting.device) for _ in range(2))
    layers = [setting.lstm(size.inputs, size.outputs) for size in setting.config.layer_sizes]
    x = setting.draw(1, 1, setting.config.embedding_size)

    def dense() -> Tensor:
        y = x
        for layer in layers:
            y = layer(y)[0]
        return y

    times = setting.seconds(
        {
            "fused": setting.graphed(lambda: model.write_step(ids, state, after)),
            "fused with softmax": setting.graphed(lambda: model.top_k(model.write_step(ids, state, after), 5)),
            "cuDNN": setting.graphed(dense),
        }
    )
    of_layers = sum(tensor.nbytes for layer in weights.layers for tensor in layer) / bandwidth
    whole = of_layers + weights.table.nbytes / bandwidth
    return [
        at_least(
            "a token at batch 1, layers, in a graph: cuDNN's dense LSTMs / fused",
            microseconds(cuDNN=times["cuDNN"], fused=times["fused"]),
            times["cuDNN"] / times["fused"],
            3,
        ),
        at_most(
            "a token at batch 1, layers, in a graph: fused",
            microseconds(fused=times["fused"]),
            times["fused"] * 1e6,
            25,
            " us",
        ),
        shown(
            "a token at batch 1, layers, in a graph: fused / weights at the bandwidth of a copy",
            microseconds(fused=times["fused"], floor=of_layers),
            times["fused"] / of_layers,
        ),
        shown(
            "the same with the 5 likeliest words",
            microseconds(fused=times["fused with softmax"], floor=whole),
            times["fused with softmax"] / whole,
        ),
    ]


def sequence(setting: Setting, weights: FusedWeights, batch: int, bandwidth: float) -> list[Row]:
    """The widest layer over many steps, its input's product included, a step at a time in the figures."""
    forms, steps = forms_for(setting.device), setting.steps
    layer = place(weights.layers[1], setting.device, forms)
    inputs, outputs, groups = layer.weight.shape[0], layer.bias.shape[1], layer.context.shape[0]
    x = setting.draw(batch, steps, inputs)
    vectors, state = x.float(), torch.zeros(batch, outputs, device=setting.device)
    lengths = torch.full((batch,), steps, dtype=torch.int32, device=setting.device)
    dense = setting.lstm(inputs, outputs)
    padded = [setting.lstm(inputs, setting.padded) for _ in range(groups)]
    times = setting.seconds(
        {
            "fused": lambda: forms.sequence(layer.from_input(vectors), layer.context, state, state, lengths),
            "dense": lambda: dense(x),
            "padded": lambda: [part(x) for part in padded],
        }
    )
    step = {name: value / steps for name, value in times.items()}
    floor = batch * (4 * outputs + outputs) * 4 / bandwidth
    return [
        at_least(
            f"a step of a layer in a sequence at batch {batch}: {name} / fused",
            microseconds(cuDNN=step[form], fused=step["fused"], floor=floor),
            step[form] / step["fused"],
            bar,
        )
        for form, name, bar in (
            ("dense", "cuDNN's dense LSTM", 2),
            ("padded", f"{groups} of cuDNN's, {setting.padded} wide", 1),
        )
    ]


def scoring(setting: Setting, model: FusedModel, weights: FusedWeights, rate: float) -> Row:
    """Every token of many texts scored."""
    ids = torch.randint(setting.config.vocabulary_size, (setting.rows, setting.steps + 1))
    lengths = torch.full((setting.rows,), setting.steps)
    zeros = torch.zeros(setting.rows, model.state_size, device=setting.device)

    def score() -> None:
        hidden, _ = model.advance(ids[:, :-1], lengths, zeros)
        model.score(hidden.flatten(0, 1), ids[:, 1:].flatten())

    seconds = setting.seconds({"score": score})["score"] / ids[:, 1:].numel()
    # A score takes two passes over the table.
    numbers = 2 * weights.table.numel() + sum(x.numel() for layer in weights.layers for x in layer)
    floor = 2 * numbers / rate
    return at_least(
        f"scoring at batch {setting.rows}",
        f"{1 / seconds:,.0f} tok/s, operations at the rate of a square product {1 / floor:,.0f} tok/s",
        1e-6 / seconds,
        2,
        " million tok/s",
    )


def rehearsed_training() -> list[Row]:
    """The comparisons of training with a model that the CPU is done with at once."""
    tiny = (gpu_training.Corpus("ptb", 40, 1000, 6.0),)
    return gpu_training.rows(torch.device("cpu"), 1, tiny, embedding_size=16, hidden_size=24)


def microseconds(**seconds: float) -> str:
    """Times in words: `cuDNN 40.1 us, fused 14.2 us`."""
    return ", ".join(f"{name} {value * 1e6:.1f} us" for name, value in seconds.items())


def main() -> None:
    """Measure, print and write; or rehearse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="a tiny model on the CPU; prints and writes no figure")
    if parser.parse_args().rehearse:
        rows = [*measure(rehearsal()), *rehearsed_training()]
        print(f"Rehearsed: {len(rows)} comparisons. Nothing was measured.")
        return
    if not torch.cuda.is_available():
        sys.exit("error: there is no GPU that torch can use; run this where there is one, or with --rehearse")
    rows = [*measure(paper()), *gpu_training.rows(torch.device("cuda"), rounds=5)]
    name = torch.cuda.get_device_name()
    show(f"{name}, g=4 K=2 M=1400 V=33,278, bfloat16", rows, Console())
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    date = datetime.now(UTC).date().isoformat()
    write_json(path, {"device": name, "date": date, "versions": versions, "rows": [asdict(row) for row in rows]})
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
