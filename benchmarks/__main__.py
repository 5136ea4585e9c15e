"""`python -m benchmarks [--rounds N] [--out FILE]`: every comparison, for a random model of the paper's size and the
bundled one.

Boundary: makes the models to measure in a temporary folder, prints, and writes the same into a file where one is named.
Nothing is asserted: a machine may be busy. What needs something that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import engine, harness, int8, n_gram, service, training, transformer
from benchmarks.harness import Row
from export.quantize import Precision
from model.checkpoint import save_checkpoint
from model.config import ModelConfig
from model.conventions import Convention
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
CHECKPOINT, BUNDLE = ROOT / "checkpoints" / "wikitext-2", ROOT / "bundles" / "wikitext-2"
RANDOM, BUNDLED = "g=4 K=2 M=1400 V=33,278, random weights", "bundled model"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved runs of every action")
    parser.add_argument("--out", type=Path, help="JSON file for the rows, with what machine they are of")
    options = parser.parse_args()
    rounds, console = options.rounds, Console()
    shown: dict[str, list[Row]] = {}

    def show(title: str, rows: list[Row]) -> None:
        shown[title] = rows
        harness.show(title, rows, console)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random, graphs = folder / "random", folder / "random-graphs"
        _save_random(random)
        against_torch = engine.rows(random, graphs, rounds)
        against_gpt2 = transformer.row(graphs / Precision.INT8, folder / "gpt2", rounds)
        against_itself = int8.rows(random, graphs / Precision.INT8, folder / "random-operators", rounds)
        show(RANDOM, [*against_torch, *against_itself, against_gpt2])
        bundled = folder / "bundled-graphs"
        against_torch = engine.rows(CHECKPOINT, bundled, rounds)
        against_itself = int8.rows(CHECKPOINT, bundled / Precision.INT8, folder / "bundled-operators", rounds)
        show(BUNDLED, [*against_torch, *against_itself])
        show(training.TITLE, training.rows(rounds))
        show(f"service of the {BUNDLED}", service.rows(folder / "service", BUNDLE, rounds))
        title = f"KenLM 5-gram of WikiText-2 and the {BUNDLED}"
        if lacking := n_gram.missing():
            console.print(f"Left out: {title}. It needs {lacking}.")
        else:
            show(title, n_gram.rows(folder / "n-gram", BUNDLE, rounds))
    if options.out:
        harness.record(options.out, shown)


def _save_random(folder: Path) -> None:
    """The paper's g=4 model with WikiText-2's number of words."""
    torch.manual_seed(1)
    words = ["<eos>", "<unk>", *(f"word{i}" for i in range(33_276))]
    sizes = {"vocabulary_size": len(words), "embedding_size": 400, "hidden_size": 1400, "layers": 3}
    model = LanguageModel(ModelConfig.from_dict(sizes))
    save_checkpoint(folder, model, Vocabulary(words, Convention.WIKITEXT), {})


if __name__ == "__main__":
    main()
