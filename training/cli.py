"""`python -m training train | evaluate | presets`: from a corpus to a checkpoint in a terminal.

Boundary: arguments in, lines on the terminal out. Errors of this project end as one line and exit status 2.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from model.command_line import errors_in_one_line
from model.conventions import Convention
from model.errors import TrainingError
from model.language_model import outline
from training.analyze_command import analyze_command
from training.corpus import OWN_MAX_WORDS, OWN_MIN_COUNT, load_corpus
from training.evaluate_command import DataOption, evaluate_command
from training.memory import keep_freed_memory
from training.presets import PRESETS, find_preset
from training.progress import TerminalObserver
from training.trainer import Data, Trainer, is_occupied

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train and evaluate PRU language models.")


@app.command()
def train(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    preset: Annotated[str, typer.Option(help="Architecture and recipe; `presets` lists them.")] = "small",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs, instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of weights and dropout.")] = 1,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time; --resume goes on.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that stopped in --out.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the checkpoint's weights as float16.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores unless given.")] = None,
    min_count: Annotated[
        int | None, typer.Option(min=1, help=f"Rarer words are <unk>. Own text: {OWN_MIN_COUNT} unless given.")
    ] = None,
    max_vocab: Annotated[
        int | None, typer.Option(min=3, help=f"Most words known. Own text: {OWN_MAX_WORDS} unless given.")
    ] = None,
    convention: Annotated[
        Convention | None, typer.Option(help="How own text is written; wikitext and ptb mean those corpora's tokens.")
    ] = None,
) -> None:
    """Train a model. Ctrl-C and --max-minutes stop it so that --resume goes on exactly."""
    chosen = find_preset(preset)
    if is_occupied(out) and not resume:
        raise TrainingError(f"{out} already holds a run; give --resume to go on with it, or another --out folder")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    corpus = load_corpus(data, convention=convention)
    vocabulary = corpus.vocabulary(min_count, max_vocab)
    ids = {split: vocabulary.encode(text) for split, text in corpus.splits.items()}
    recipe = chosen.recipe.model_copy(update={"epochs": epochs} if epochs else {})
    trainer = Trainer(
        chosen.config(len(vocabulary)),
        recipe,
        Data(corpus.name, dict(corpus.sha256), vocabulary, ids["train"], ids["valid"], ids.get("test")),
        out,
        preset=preset,
        seed=seed,
        half=half,
    )
    if resume:
        trainer.resume()
    console = Console(stderr=True, soft_wrap=True)
    deadline = time.monotonic() + max_minutes * 60 if max_minutes is not None else None
    with _interruptible() as interrupted, TerminalObserver(console) as observer:
        try:
            finished = trainer.run(
                observer, lambda: interrupted() or (deadline is not None and time.monotonic() > deadline)
            )
        except KeyboardInterrupt:
            raise TrainingError(f"interrupted twice; --resume goes on from what {out} last saved") from None
    if not finished and interrupted():
        raise TrainingError(f"interrupted; {out} holds everything so far, and --resume goes on")
    console.print(f"{'finished' if finished else 'time is up, --resume goes on'}; the checkpoint is {out}")


class _Interrupted:
    def __init__(self) -> None:
        self.noted = False

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.noted:
            # Asked twice: stop at once. Files are whole all the same, but what came after the last save is lost.
            raise KeyboardInterrupt
        self.noted = True

    def __call__(self) -> bool:
        return self.noted


@contextmanager
def _interruptible() -> Iterator[_Interrupted]:
    """Note Ctrl-C instead of raising: an exception in the middle of an update would leave half of it done."""
    interrupted = _Interrupted()
    before = signal.signal(signal.SIGINT, interrupted.note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


app.command(name="evaluate")(evaluate_command)
app.command(name="analyze")(analyze_command)


@app.command()
def presets(
    vocabulary_size: Annotated[int, typer.Option(min=2, help="Words, for the parameter counts.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a preset, for programs.")] = False,
) -> None:
    """List the presets with their parameter counts."""
    table = Table("preset", "model", "million parameters", "recipe", title=f"vocabulary of {vocabulary_size:,} words")
    for preset in PRESETS.values():
        model = outline(preset.config(vocabulary_size))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        recipe = preset.recipe
        if as_json:
            print(
                json.dumps(
                    {
                        "preset": preset.name,
                        "summary": preset.summary,
                        "parameters": parameters,
                        "recipe": recipe.model_dump(mode="json"),
                    }
                )
            )
        table.add_row(
            preset.name,
            preset.summary,
            f"{parameters / 1e6:.2f}",
            f"{recipe.optimizer}, rate {recipe.learning_rate:g}, {recipe.epochs} epochs of "
            f"{recipe.batch_size} x {recipe.bptt}, dropout {recipe.dropout:g}",
        )
    if not as_json:
        Console().print(table)


def main() -> None:
    """Run the command line; an error of this project is one line and exit status 2."""
    with errors_in_one_line():
        app()
