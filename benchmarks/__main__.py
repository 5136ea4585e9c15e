"""`python -m benchmarks [--rounds N]`: every comparison, for a random model of the paper's size and the bundled one.

Boundary: makes the models to measure in a temporary folder, and prints. Nothing is asserted: a machine may be busy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import engine
from benchmarks.harness import show
from model.checkpoint import save_checkpoint
from model.config import ModelConfig
from model.conventions import Convention
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary

BUNDLED = Path(__file__).parents[1] / "checkpoints" / "wikitext-2"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved runs of every action")
    rounds = parser.parse_args().rounds
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = folder / "random"
        _save_random(random)
        for title, checkpoint in (("g=4 K=2 M=1400 V=33,278, random weights", random), ("bundled model", BUNDLED)):
            show(title, engine.rows(checkpoint, folder / f"{checkpoint.name}-graphs", rounds), console)


def _save_random(folder: Path) -> None:
    """The paper's g=4 model with WikiText-2's number of words."""
    torch.manual_seed(1)
    words = ["<eos>", "<unk>", *(f"word{i}" for i in range(33_276))]
    sizes = {"vocabulary_size": len(words), "embedding_size": 400, "hidden_size": 1400, "layers": 3}
    model = LanguageModel(ModelConfig.from_dict(sizes))
    save_checkpoint(folder, model, Vocabulary(words, Convention.WIKITEXT), {})


if __name__ == "__main__":
    main()
