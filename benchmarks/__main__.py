"""`python -m benchmarks [--rounds N]`: every comparison, for a random model of the paper's size and the bundled one.

Boundary: makes the models to measure in a temporary folder, and prints. Nothing is asserted: a machine may be busy.
What needs something that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import engine, int8, n_gram, service, training, transformer
from benchmarks.harness import show
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
    rounds = parser.parse_args().rounds
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random, graphs = folder / "random", folder / "random-graphs"
        _save_random(random)
        against_torch = engine.rows(random, graphs, rounds)
        against_gpt2 = transformer.row(graphs / Precision.INT8, folder / "gpt2", rounds)
        against_itself = int8.rows(random, graphs / Precision.INT8, folder / "random-operators", rounds)
        show(RANDOM, [*against_torch, *against_itself, against_gpt2], console)
        bundled = folder / "bundled-graphs"
        against_torch = engine.rows(CHECKPOINT, bundled, rounds)
        against_itself = int8.rows(CHECKPOINT, bundled / Precision.INT8, folder / "bundled-operators", rounds)
        show(BUNDLED, [*against_torch, *against_itself], console)
        show("training of g=4 K=2 M=1400 V=10,000", training.rows(rounds), console)
        show(f"service of the {BUNDLED}", service.rows(folder / "service", BUNDLE, rounds), console)
        title = f"KenLM 5-gram of WikiText-2 and the {BUNDLED}"
        if lacking := n_gram.missing():
            console.print(f"Left out: {title}. It needs {lacking}.")
        else:
            show(title, n_gram.rows(folder / "n-gram", BUNDLE, rounds), console)


def _save_random(folder: Path) -> None:
    """The paper's g=4 model with WikiText-2's number of words."""
    torch.manual_seed(1)
    words = ["<eos>", "<unk>", *(f"word{i}" for i in range(33_276))]
    sizes = {"vocabulary_size": len(words), "embedding_size": 400, "hidden_size": 1400, "layers": 3}
    model = LanguageModel(ModelConfig.from_dict(sizes))
    save_checkpoint(folder, model, Vocabulary(words, Convention.WIKITEXT), {})


if __name__ == "__main__":
    main()
