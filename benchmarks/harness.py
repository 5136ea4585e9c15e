"""Fair timing of alternatives: interleaved runs, medians, and a table that says what was aimed at.

Boundary: callables in, rows out, and rows to a terminal or a file. What is measured is the business of the other files
here.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model.files import write_json
from model.machine import processor_name

SECONDS = 0.2
"""Shortest time of one run: a quick action is repeated until it takes that long."""

RATIO = "x"
"""Unit of a value that is one time, or one size, over another."""


@dataclass(frozen=True)
class Row:
    """One comparison. `value`, in `unit`, is what `bar` speaks of; a row without a bar is neither met nor missed."""

    name: str
    figures: str
    value: float
    unit: str
    bar: str | None
    met: bool | None


def interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of one call of each action, measured in turn, `rounds` times, after a warm-up."""
    repeats = {}
    for name, action in actions.items():
        action()
        began = time.perf_counter()
        action()
        repeats[name] = max(1, round(SECONDS / (time.perf_counter() - began)))
    runs: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            began = time.perf_counter()
            for _ in range(repeats[name]):
                action()
            runs[name].append((time.perf_counter() - began) / repeats[name])
    return {name: statistics.median(times) for name, times in runs.items()}


def at_least(name: str, figures: str, value: float, bar: float, unit: str = RATIO) -> Row:
    """A row whose value should be at least `bar`."""
    return Row(name, figures, value, unit, f">= {bar:g}{unit}", value >= bar)


def at_most(name: str, figures: str, value: float, bar: float, unit: str = RATIO) -> Row:
    """A row whose value should be at most `bar`."""
    return Row(name, figures, value, unit, f"<= {bar:g}{unit}", value <= bar)


def shown(name: str, figures: str, value: float) -> Row:
    """A row whose ratio has no bar."""
    return Row(name, figures, value, RATIO, None, None)


def milliseconds(**seconds: float) -> str:
    """Times in words: `int8 1.20 ms, torch 9.80 ms`."""
    return ", ".join(f"{name.replace('_', ' ')} {value * 1e3:.2f} ms" for name, value in seconds.items())


def show(title: str, rows: Sequence[Row], console: Console) -> None:
    """Print a table for people, then one JSON line a row for programs."""
    table = Table("row", "medians", "value", "bar", "met", title=title)
    for row in rows:
        met = "shown" if row.met is None else "yes" if row.met else "no"
        table.add_row(row.name, row.figures, f"{row.value:.2f}{row.unit}", row.bar or "", met)
    console.print(table)
    for row in rows:
        print(json.dumps({"model": title, **asdict(row)}))


def record(path: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write tables of rows by their titles, with the machine and the day they are of."""
    machine = {"processor": processor_name(), "cores": os.cpu_count(), "date": datetime.now(UTC).date().isoformat()}
    write_json(path, {**machine, "tables": {title: [asdict(row) for row in rows] for title, rows in tables.items()}})
