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
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.engines.choice import Offer
from app.model_service import ModelService
from app.schemas import PredictAnswer
from app.scored_text import ScoredText, score_of
from app.scoring import Likelihood

WIDEST = 1000
"""Characters of a line that a table is given: more than the widest terminal has room for."""


def show_predictions(answer: PredictAnswer, *, as_json: bool) -> None:
    """Print the most likely next words."""
    if as_json:
        print(answer.model_dump_json(indent=2, ensure_ascii=True))
        return
    model = f"{_shown(answer.model.name)}, {answer.model.precision}"
    table = Table("word", caption=f"{model}; {answer.token_count} tokens read")
    table.add_column("probability", justify="right")
    table.add_column("log-probability", justify="right")
    for prediction in answer.predictions:
        table.add_row(_shown(prediction.word), f"{prediction.probability:.4f}", f"{prediction.log_probability:.3f}")
    _print(table)


def show_score(scored: ScoredText, service: ModelService, *, as_json: bool) -> None:
    """Print a text's perplexity and its lines' figures; blank lines only add to the whole."""
    lines = [
        (number, line)
        for number, line in enumerate(scored.lines(service.vocabulary.eos_id), start=1)
        if line.text.strip()
    ]
    if as_json:
        document = {
            "model": service.identity.model_dump(),
            **_figures(scored.likelihood),
            "lines": [{"line": number, **_figures(line.likelihood)} for number, line in lines],
        }
        print(json.dumps(document, indent=2))
        return
    table = Table()
    for name in ("line", "tokens", "unknown", "perplexity"):
        table.add_column(name, justify="right")
    table.add_column("text", overflow="ellipsis", no_wrap=True)
    for number, line in lines:
        table.add_row(str(number), *_cells(line.likelihood), _shown(line.text[:WIDEST]))
    table.add_section()
    table.add_row("all", *_cells(scored.likelihood), style="bold")
    table.caption = f"{_shown(service.identity.name)}, {service.identity.precision}"
    _print(table)


def show_engines(name: str, offers: Sequence[Offer], *, as_json: bool) -> None:
    """Print what every engine comes to for the bundle of that name."""
    if as_json:
        print(json.dumps({"name": name, "engines": [asdict(offer) for offer in offers]}, indent=2))
        return
    table = Table("engine", "precision", "device", "state", caption=f"{_shown(name)}; the fastest first")
    for offer in offers:
        state = offer.missing or ("chosen" if offer.chosen else "ready")
        if offer.missing is None and not offer.validated:
            state += f", not validated on {offer.device}"
        table.add_row(offer.engine, offer.precision, offer.device, _shown(state))
    _print(table)


def _shown(text: str) -> str:
    """Text for a cell: no markup, blanks for what separates, and a mark in place of controls and the like."""
    return escape(
        "".join(
            character if character.isprintable() else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
            for character in text
        )
    )


def _print(table: Table) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    Console().print(table)


def _figures(figures: Likelihood) -> dict[str, Any]:
    return score_of(figures).model_dump()


def _cells(figures: Likelihood) -> tuple[str, str, str]:
    perplexity = figures.perplexity
    return str(figures.token_count), str(figures.oov_count), "-" if perplexity is None else f"{perplexity:.2f}"
