"""`pru export`: a checkpoint in, a validated bundle out; `pru validate`: it is so here too. Also `python -m export`.

Boundary: arguments in, lines on the terminal out. Errors of this project end as one line and exit status 2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from export.exporter import Conditions, Options, Results, ShowProgress, export_bundle, validate_bundle
from export.forms import ENGINES, PRECISIONS
from model.bundle import Manifest
from model.command_line import errors_in_one_line, examples
from model.errors import ExportError


class _ExportUnlessNamed(TyperGroup):
    """A command line without a command's name is one of `export`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["export", *args])


app = typer.Typer(add_completion=False, cls=_ExportUnlessNamed)

Checkpoint = Annotated[Path, typer.Option(help="Folder that `pru train` wrote.")]
Engines = Annotated[str | None, typer.Option(help=f"Names with commas between: {', '.join(ENGINES)}.")]
Texts = Annotated[list[Path] | None, typer.Option(help="Text to validate on; else the model writes one.")]
TextName = Annotated[str | None, typer.Option(help="What the manifest calls that text; its file names.")]
Tokens = Annotated[int, typer.Option(min=1, help="Read at most this many tokens of the text.")]
MaxCost = Annotated[float, typer.Option(min=0, help="Most that a precision below float32 may cost of perplexity.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores unless given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command(
    epilog=examples(
        "pru export --checkpoint runs/mine --out runs/bundle",
        "pru export --checkpoint runs/mine --out bundle --engines onnx,torchscript",
        "pru export --checkpoint runs/mine --out runs/bundle --text my-valid.txt --json",
    )
)
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    engines: Engines = "onnx",
    precision: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(PRECISIONS)}; may be given again. All that the engines have, unless given."),
    ] = None,
    text: Texts = None,
    text_name: TextName = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the checkpoint folder's.")] = None,
    tokens: Tokens = Options.tokens,
    max_cost: MaxCost = Options.max_cost,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the manifest.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to credit for the data, for the manifest.")] = None,
    intended_use: Annotated[str | None, typer.Option(help="What the model is for, for the manifest.")] = None,
    limitations: Annotated[str | None, typer.Option(help="What it cannot do, for the manifest.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint to a bundle, accepted only if it computes what the model does."""
    options = Options(
        name=name or checkpoint.resolve().name,
        texts=tuple(text or ()),
        text_name=text_name,
        engines=_names(engines),
        precisions=tuple(dict.fromkeys(precision or ())),
        tokens=tokens,
        max_cost=max_cost,
        threads=_use_threads(threads),
        licence=licence,
        attribution=attribution,
        intended_use=intended_use,
        limitations=limitations,
        replace=force,
    )
    with _progress(Console(stderr=True)) as show:
        manifest, results = export_bundle(checkpoint, out, options, show)
    _report(out, manifest, results, f"the bundle is {out}", as_json)


@app.command(
    epilog=examples(
        "pru validate runs/bundle --checkpoint runs/mine",
        "pru validate runs/bundle --checkpoint runs/mine --device cuda",
    )
)
def validate(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder that an export made.")],
    checkpoint: Checkpoint,
    engines: Engines = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to run the engines.")] = "cpu",
    text: Texts = None,
    text_name: TextName = None,
    tokens: Tokens = Options.tokens,
    max_cost: MaxCost = Options.max_cost,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Validate a bundle on this machine against the checkpoint it was made of.

    What is found, of all or of some engines, is added to the manifest. So the
    bundle gets another sum: sessions move only between copies of one.
    """
    conditions = Conditions(tuple(text or ()), text_name, tokens, max_cost, _use_threads(threads), device)
    with _progress(Console(stderr=True)) as show:
        manifest, results = validate_bundle(bundle, checkpoint, _names(engines), conditions, show)
    _report(bundle, manifest, results, f"{bundle} is validated on {device}", as_json)


def _names(engines: str | None) -> tuple[str, ...]:
    names = [name.strip() for name in (engines or "").split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _use_threads(threads: int | None) -> int:
    """Tell torch how many threads there are, and say so."""
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    return threads


@contextmanager
def _progress(console: Console) -> Iterator[ShowProgress]:
    """A bar a stage, from the first token read; Ctrl-C as an error, since until the end nothing is written."""
    columns = (TextColumn("{task.description:19}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}

    def show(stage: str, total: int, done: int) -> None:
        progress.start()
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total)
        progress.advance(tasks[stage], done)

    try:
        yield show
    except KeyboardInterrupt:
        raise ExportError("interrupted; nothing was written") from None
    finally:
        if tasks:
            progress.stop()


def _report(bundle: Path, manifest: Manifest, results: Results, done: str, as_json: bool) -> None:
    """Perplexity before and after, what it takes, and what was done."""
    forms = list(results)
    last = manifest.engines[forms[0].engine][forms[0].precision].validated[-1]
    sizes = {
        form: sum(manifest.files[name].bytes for name in manifest.engines[form.engine][form.precision].files)
        for form in forms
    }
    if as_json:
        artefacts = [
            {
                "engine": form.engine,
                "precision": form.precision,
                "perplexity": found.perplexity,
                "cost": found.cost,
                "difference_of_hidden": found.differences.hidden,
                "bytes": sizes[form],
            }
            for form, found in results.items()
        ]
        reference = {"perplexity": last.reference_perplexity, "tokens": last.tokens, "data": last.data}
        print(
            json.dumps({"bundle": str(bundle), "name": manifest.name, "reference": reference, "artefacts": artefacts})
        )
        return
    table = Table(title=f"{escape(manifest.name)}: perplexity on {last.tokens:,} tokens of {escape(last.data)}")
    for heading in ("engine", "precision", "perplexity", "change", "difference of hidden", "MB"):
        table.add_column(heading, justify="left" if heading in ("engine", "precision") else "right")
    table.add_row("reference", "", f"{last.reference_perplexity:.4f}", "", "", "")
    for form, found in results.items():
        change, difference = f"{found.cost:+.4%}", f"{found.differences.hidden:.4%}"
        megabytes = f"{sizes[form] / 1e6:.1f}"
        table.add_row(form.engine, form.precision, f"{found.perplexity:.4f}", change, difference, megabytes)
    console = Console()
    console.print(table)
    console.print(done, soft_wrap=True, markup=False)


def main() -> None:
    """Run the command line; an error of this project is one line and exit status 2."""
    with errors_in_one_line():
        app()
