"""Tables of plain text in Markdown.

Boundary: cells in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NONE = "–"
"""A cell without a value."""

Row = dict[str, str]
"""Cells by the names of their columns; those left out are `NONE`."""


def table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A Markdown table; whatever a cell holds, it stays one cell of plain text."""
    lines = [columns, ["---"] * len(columns), *([_plain(row.get(column, NONE)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """A cell's text with what Markdown would read as more than text made harmless."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
