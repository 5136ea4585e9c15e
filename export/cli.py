"""`python -m export`: a checkpoint in, a validated bundle out, in a terminal.

Boundary: arguments in, lines on the terminal out. Errors of this project end as one line and exit status 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from export.exporter import Options, ShowProgress, export_bundle
from export.quantize import Precision
from export.validate import Measured
from model.bundle import Manifest
from model.command_line import errors_in_one_line
from model.errors import ExportError

app = typer.Typer(add_completion=False)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="Folder that `python -m training train` wrote.")],
    out: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    precision: Annotated[list[Precision] | None, typer.Option(help="May be given twice; both unless given.")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="Text to validate on; else the model writes one.")] = None,
    text_name: Annotated[str | None, typer.Option(help="What the manifest calls that text; its file names.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the checkpoint folder's.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Read at most this many tokens of the text.")] = Options.tokens,
    max_cost: Annotated[float, typer.Option(min=0, help="Most that int8 may cost of perplexity.")] = Options.max_cost,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the manifest.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to credit for the data, for the manifest.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores unless given.")] = None,
) -> None:
    """Export a checkpoint to a bundle of ONNX graphs, accepted only if they compute what the model does."""
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    options = Options(
        name=name or checkpoint.resolve().name,
        texts=tuple(text or ()),
        text_name=text_name,
        precisions=tuple(dict.fromkeys(precision)) if precision else Options.precisions,
        tokens=tokens,
        max_cost=max_cost,
        threads=threads,
        licence=licence,
        attribution=attribution,
        replace=force,
    )
    with _progress(Console(stderr=True)) as show:
        try:
            manifest, measured = export_bundle(checkpoint, out, options, show)
        except KeyboardInterrupt:
            raise ExportError("interrupted; nothing was written") from None
    _report(Console(), out, manifest, measured)


@contextmanager
def _progress(console: Console) -> Iterator[ShowProgress]:
    """A bar a stage, from the first token read."""
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}

    def show(stage: str, total: int, done: int) -> None:
        progress.start()
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total)
        progress.advance(tasks[stage], done)

    try:
        yield show
    finally:
        if tasks:
            progress.stop()


def _report(console: Console, out: Path, manifest: Manifest, measured: dict[Precision, Measured]) -> None:
    """Perplexity before and after, and what was written."""
    artefacts = manifest.engines["onnx"]
    validated = next(iter(artefacts.values())).validated
    table = Table(title=f"{manifest.name}: perplexity on {validated['tokens']:,} tokens of {validated['data']}")
    for heading in ("precision", "perplexity", "change", "difference of hidden", "MB"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")
    reference = next(iter(measured.values())).reference_perplexity
    table.add_row("reference", f"{reference:.4f}", "", "", "")
    for precision, found in measured.items():
        size = sum(manifest.files[name].bytes for name in artefacts[precision].files)
        difference = f"{found.differences.hidden:.4%}"
        table.add_row(precision, f"{found.perplexity:.4f}", f"{found.cost:+.4%}", difference, f"{size / 1e6:.1f}")
    console.print(table)
    console.print(f"the bundle is {out}")


def main() -> None:
    """Run the command line; an error of this project is one line and exit status 2."""
    with errors_in_one_line():
        app()
