"""Answers as a person or a program reads them in a terminal: tables, or one JSON document.

Boundary: printing only. Of a text, nothing is printed that a terminal would obey, and a character that it cannot show
stops no table. JSON is ASCII, so that no encoding changes it.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.engines.choice import Offer
from app.schemas import PredictAnswer
from model.command_line import printable


def show_predictions(answer: PredictAnswer, *, as_json: bool) -> None:
    """Print the most likely next words."""
    if as_json:
        print(answer.model_dump_json(indent=2, ensure_ascii=True))
        return
    model = f"{shown(answer.model.name)}, {answer.model.precision}"
    table = Table("word", caption=f"{model}; {answer.token_count} tokens read")
    table.add_column("probability", justify="right")
    table.add_column("log-probability", justify="right")
    for prediction in answer.predictions:
        table.add_row(shown(prediction.word), f"{prediction.probability:.4f}", f"{prediction.log_probability:.3f}")
    print_table(table)


def show_engines(name: str, offers: Sequence[Offer], *, as_json: bool) -> None:
    """Print what every engine comes to for the bundle of that name."""
    if as_json:
        print(json.dumps({"name": name, "engines": [asdict(offer) for offer in offers]}, indent=2))
        return
    table = Table("engine", "precision", "device", "state", caption=f"{shown(name)}; the fastest first")
    for offer in offers:
        state = offer.missing or ("chosen" if offer.chosen else "ready")
        if offer.missing is None and not offer.validated:
            state += f", not validated on {offer.device}"
        table.add_row(offer.engine, offer.precision, offer.device, shown(state))
    print_table(table)


def shown(text: str) -> str:
    """Text for a cell: no markup, and nothing that a terminal would obey."""
    return escape(printable(text))


def print_table(table: Table) -> None:
    """Print a table; a character that standard output cannot show becomes another."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    Console().print(table)
