"""RESULTS.md read back cell by cell."""

from __future__ import annotations

import re

from tests.training.records import Record, read
from training.results import results

Row = dict[str, str]


def tables(text: str) -> dict[str, list[Row]]:
    """The rows of every table by its heading, cells by the names of their columns."""
    found: dict[str, list[Row]] = {}
    for part in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        heading, *lines = part.splitlines()
        cells = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in lines if line.startswith("|")]
        stripped = [[cell.strip() for cell in line] for line in cells]
        if stripped:
            columns, _, *rows = stripped
            found[heading] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def table(heading: str, *records: Record) -> list[Row]:
    """One table of the results of these records."""
    return tables(results(read(*records)))[heading]


ADVANCED = "Table 1: advanced dropouts"
STANDARD = "Table 1: standard dropout"
OTHERS = "Runs of no table or figure"
