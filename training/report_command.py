"""`pru report`: a table of results and pictures from the records of runs.

Boundary: folders in, files and one line on the terminal out. What is written is `training.results` and
`training.pictures`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.output import write_all
from training.results import CURVES, LEVELS, results
from training.run_record import read_run

RESULTS = "RESULTS.md"


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, finished or not.", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="Folder for RESULTS.md and its pictures.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line, for programs.")] = False,
) -> None:
    """Write what runs reached beside what the paper reports, and draw their curves."""
    console = Console(stderr=True, soft_wrap=True)
    records = [read_run(folder) for folder in {folder.resolve(): folder for folder in runs}.values()]
    with console.status("drawing"):
        # A second's worth of code that no other command needs.
        from training.pictures import learning_curves, levels_and_groups, png  # noqa: PLC0415

        figures = {CURVES: learning_curves(records), LEVELS: levels_and_groups(records)}
        files = {name: png(figure) for name, figure in figures.items() if figure is not None}
    # The text comes last: it names pictures that are there.
    files[RESULTS] = results(records, files.keys()).encode()
    write_all(out, files)
    if as_json:
        print(json.dumps({"out": str(out), "files": list(files), "runs": len(records)}))
    else:
        console.print(f"{', '.join(files)} of {len(records)} run{'s'[: len(records) - 1]} in {out}", markup=False)
