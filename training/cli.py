"""`pru train | evaluate | report | analyze | pack | presets`: from a corpus to a checkpoint; also `python -m training`.

Boundary: arguments in, lines on the terminal out. Errors of this project end as one line and exit status 2.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.checkpoint import pack_checkpoint, read_record
from model.command_line import errors_in_one_line, examples
from model.conventions import Convention
from model.errors import ConfigurationError, TrainingError
from model.language_model import outline
from training.analyze_command import analyze_command
from training.corpus import OWN_MAX_WORDS, OWN_MIN_COUNT, load_corpus
from training.coverage import coverage, doubt
from training.data import Data
from training.evaluate_command import DataOption, JoinOption, evaluate_command
from training.memory import enough_memory, keep_freed_memory
from training.observer import Observer
from training.presets import PRESETS, find_preset
from training.progress import Observers, TensorBoardObserver, TerminalObserver
from training.report_command import report_command
from training.run_folder import checkpoint_in_words, how_to_go_on, is_occupied
from training.settings import with_settings
from training.trainer import Trainer
from training.warm_start import warm_start
from training.world import Device, joined, local_rank

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train and evaluate PRU language models.")

MOST_THREADS = 1024
"""More cores than a machine has; of very many threads OpenMP ends the process without a word."""


def _presets(incomplete: str) -> list[str]:
    """Names of presets, for a shell that completes one."""
    return [name for name in PRESETS if name.startswith(incomplete)]


@app.command(
    epilog=examples(
        "pru train --data my-text.txt --out runs/mine",
        "pru train --data my-text.txt --out runs/mine --resume",
        "pru train --data ptb --preset pru-g4 --out runs/pru-g4",
        "pru train --data ptb --set recipe.dropout.hidden=0.3 --out runs/other",
    )
)
def train(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    preset: Annotated[
        str, typer.Option(help="Architecture and recipe; `pru presets` lists them.", autocompletion=_presets)
    ] = "small",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of the preset, such as --set recipe.dropout.hidden=0.3 or --set model.softmaxes=5.",
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Start from the weights of this checkpoint: finetuning needs one.")
    ] = None,
    start_epoch: Annotated[
        int, typer.Option("--from-epoch", min=0, help="Epochs of the schedule that --from has behind it.")
    ] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs, instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of weights and dropout.")] = 1,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time; --resume goes on.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that stopped in --out.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the checkpoint's weights as float16.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="CPU threads; all cores unless given.")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where to train; cuda where there is any.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs into --out.")] = False,
    min_count: Annotated[
        int | None, typer.Option(min=1, help=f"Rarer words are <unk>. Own text: {OWN_MIN_COUNT} unless given.")
    ] = None,
    max_vocab: Annotated[
        int | None, typer.Option(min=3, help=f"Most words known. Own text: {OWN_MAX_WORDS} unless given.")
    ] = None,
    convention: Annotated[
        Convention | None, typer.Option(help="How own text is written; wikitext and ptb mean those corpora's tokens.")
    ] = None,
    join_lines: JoinOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="At the end print the run's record as JSON.")] = False,
) -> None:
    """Train a model; Ctrl-C, SIGTERM and --max-minutes stop it so that --resume goes on exactly."""
    if is_occupied(out) and not resume:
        raise TrainingError(f"{out} already holds a run; give --resume to go on with it, or another --out folder")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    chosen = find_preset(preset)
    if chosen.finetunes and start is None:
        raise ConfigurationError(f"{preset} finetunes a checkpoint of {chosen.finetunes}; give it by --from")
    corpus = load_corpus(data, convention=convention, join_lines=join_lines)
    vocabulary = corpus.vocabulary(min_count, max_vocab)
    ids = {split: vocabulary.encode(text) for split, text in corpus.splits.items()}
    settings = [*(changes or []), *([f"recipe.epochs={epochs}"] if epochs else [])]
    architecture, recipe = with_settings(
        chosen.architecture, chosen.recipe_for(None if corpus.own else corpus.name), settings
    )
    if start_epoch and (start is None or start_epoch >= recipe.epochs):
        raise ConfigurationError(f"--from-epoch belongs to --from and is less than the {recipe.epochs} epochs of all")
    config = replace(chosen, architecture=architecture).config(len(vocabulary))
    smaller = "lower --max-vocab, --set recipe.batch_size or the model's sizes"
    with enough_memory(smaller), joined(device) as world:
        trainer = Trainer(
            config,
            recipe,
            Data(
                corpus.name, dict(corpus.sha256), vocabulary, ids["train"], ids["valid"], ids.get("test"), corpus.joined
            ),
            out,
            preset=preset,
            seed=seed,
            half=half,
            start=warm_start(start, config, vocabulary, start_epoch) if start else None,
            world=world,
        )
        if resume:
            trainer.resume()
        notices = [coverage(trainer.data), doubt(trainer.data, corpus.splits["valid"])]
        _run(trainer, max_minutes, tensorboard, [notice for notice in notices if notice])
        if as_json and world.leads:
            print(json.dumps({"checkpoint": str(out), **read_record(out)}))


def _run(trainer: Trainer, max_minutes: float | None, tensorboard: bool, notices: Sequence[str]) -> None:
    """Say the notices, train until the end, a signal or the time that is given, and say which it was.

    A signal to one of several processes stops all, and all end as it does: whoever supervises them starts all again.
    """
    out, world, leads = trainer.out, trainer.world, trainer.world.leads
    console = Console(stderr=True, soft_wrap=True, quiet=not leads)
    deadline = time.monotonic() + max_minutes * 60 if max_minutes is not None else None
    for notice in notices:
        console.print(notice)
    with _interruptible() as interrupted, ExitStack() as stack:
        observers: list[Observer] = [stack.enter_context(TerminalObserver(console))]
        if tensorboard and leads:
            observers.append(stack.enter_context(TensorBoardObserver(out, console)))
        try:
            finished = trainer.run(
                Observers(observers), lambda: interrupted() or (deadline is not None and time.monotonic() > deadline)
            )
        except KeyboardInterrupt:
            raise TrainingError(f"interrupted twice; {how_to_go_on(out)}") from None
    if not finished and world.mean(interrupted()):
        raise TrainingError(f"interrupted; {out} holds everything so far, and --resume goes on")
    end = "finished" if finished else "time is up, --resume goes on"
    if leads:
        console.print(f"{end}; {checkpoint_in_words(out)}")


_STOPS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what `torchrun`, Kubernetes and the like send before they kill."""


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
    """Note a signal instead of raising: an exception in the middle of an update would leave half of it done."""
    interrupted = _Interrupted()
    before = {number: signal.signal(number, interrupted.note) for number in _STOPS}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


app.command(
    name="evaluate",
    epilog=examples(
        "pru evaluate --checkpoint runs/mine --data my-text.txt",
        "pru evaluate --checkpoint runs/mine --text other.txt --json",
        "pru evaluate --checkpoint runs/pru-g4 --data ptb --dynamic --record",
    ),
)(evaluate_command)
app.command(name="analyze", epilog=examples("pru analyze runs/pru-g4 runs/lstm --data ptb --out analysis"))(
    analyze_command
)
app.command(name="report", epilog=examples("pru report runs/pru-g4 runs/lstm --out results"))(report_command)


@app.command(epilog=examples("pru pack --checkpoint runs/mine --out packed"))
def pack(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    mib: Annotated[float, typer.Option(min=0.1, help="Largest file, in MiB.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line, for programs.")] = False,
) -> None:
    """Copy a checkpoint in half precision and small files, to move it.

    `pru train --from` starts from such a copy.
    """
    console = Console(stderr=True, soft_wrap=True)
    try:
        with console.status(f"packing {escape(str(checkpoint))}"):
            count = pack_checkpoint(checkpoint, out, int(mib * 2**20))
    except OSError as error:
        raise TrainingError(f"{out} cannot be written: {error.strerror or error}; mend that and pack again") from None
    if as_json:
        print(json.dumps({"out": str(out), "files": count}))
    else:
        console.print(f"{out} holds the weights in {count} files", markup=False)


@app.command(epilog=examples("pru presets", "pru presets --vocabulary-size 33278 --corpus wikitext-2"))
def presets(
    vocabulary_size: Annotated[int, typer.Option(min=2, help="Words, for the parameter counts.")] = 10_000,
    corpus: Annotated[str, typer.Option(help="Corpus, for recipes that differ by it: ptb or wikitext-2.")] = "ptb",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a preset, for programs.")] = False,
) -> None:
    """List the presets with their parameter counts."""
    table = Table("preset", "model", "million parameters", "recipe", title=f"vocabulary of {vocabulary_size:,} words")
    for preset in PRESETS.values():
        model = outline(preset.config(vocabulary_size))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        recipe = preset.recipe_for(corpus)
        if as_json:
            print(
                json.dumps(
                    {
                        "preset": preset.name,
                        "summary": preset.summary,
                        "parameters": parameters,
                        "model": model.config.model_dump(mode="json"),
                        "recipe": recipe.model_dump(mode="json"),
                    }
                )
            )
        table.add_row(
            preset.name,
            preset.summary,
            f"{parameters / 1e6:.2f}",
            f"{recipe.optimizer}, rate {recipe.learning_rate:g}, {recipe.epochs} epochs of "
            f"{recipe.batch_size} x {recipe.bptt}",
        )
    if not as_json:
        Console().print(table)


def main() -> None:
    """Run the command line; an error of this project is one line and exit status 2.

    Of the processes of one machine, which all were given the same, the first says it.
    """
    with errors_in_one_line(speaks=local_rank() == 0):
        app()
