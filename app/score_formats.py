"""What scored texts look like: a TSV of words or lines, a table of lines, or one JSON document of words or lines.

Boundary: scored pieces in, text out as they come; only the table waits for the last. Of a text nothing is written that
a terminal would obey.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TextIO

from rich.table import Table

from app.long_text import Piece
from app.schemas import ModelIdentity
from app.scored_text import score_of
from app.scoring import Likelihood
from app.terminal import print_table, shown

WIDEST = 1000
"""Characters of a line that a table is given: more than the widest terminal has room for."""
NARROWEST = {"log-\nlikelihood": 10, "score": 8}
"""Characters of a table's column, where they are not those of its name."""
COLUMNS = ("line", "position", "word", "start", "end", "surprisal", "token_count", "oov")
LINE_COLUMNS = ("line", "token_count", "oov_count", "log_likelihood", "perplexity")

_OBEYED = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Control characters, and those that turn the direction of what follows."""
_HARMLESS = dict.fromkeys(_OBEYED, "\N{REPLACEMENT CHARACTER}")


class Format(Protocol):
    """Takes texts piece by piece, and at the end the figures of all together."""

    def add(self, file: str, piece: Piece) -> None:
        """Write the next piece of a file."""

    def end(self, total: Likelihood) -> None:
        """Write what comes last."""


class Tsv(ABC):
    """Rows that stand for themselves, as R's `read.delim` and pandas' `read_csv(sep="\\t")` read them."""

    rows: str
    """What they are of."""

    def __init__(self, out: TextIO, columns: Sequence[str], *, several: bool) -> None:
        """`several`: whether a first column names the file."""
        self._rows = csv.writer(out, dialect="excel-tab", lineterminator="\n")
        self._header = [*(["file"] if several else []), *columns]
        self._several = several
        self.count = 0
        """Rows so far."""

    def add(self, file: str, piece: Piece) -> None:
        """Write its rows."""
        self._begin()
        name = [file.translate(_HARMLESS)] if self._several else []
        for cells in self._cells(piece):
            self._rows.writerow((*name, *cells))
            self.count += 1

    def end(self, total: Likelihood) -> None:
        """Nothing comes after the rows."""
        self._begin()

    @abstractmethod
    def _cells(self, piece: Piece) -> Iterator[tuple[object, ...]]:
        """The rows of a piece."""

    def _begin(self) -> None:
        """Write what comes first, where nothing was written yet: what fails before there is a row writes nothing."""
        if self._header:
            self._rows.writerow(self._header)
            self._header = []


class WordsTsv(Tsv):
    """A row for every word."""

    rows = "words"

    def __init__(self, out: TextIO, *, several: bool, entropy: bool = False) -> None:
        super().__init__(out, (*COLUMNS, *(("entropy",) if entropy else ())), several=several)

    def _cells(self, piece: Piece) -> Iterator[tuple[object, ...]]:
        for word in piece.words():
            score = word.score
            typed = score.word.translate(_HARMLESS)
            figures = (score.start, score.end, f"{score.surprisal:.6f}", score.token_count, int(score.oov))
            entropy = () if word.entropy is None else (f"{word.entropy:.6f}",)
            yield (word.line, word.position, typed, *figures, *entropy)


class LinesTsv(Tsv):
    """A row for every line, its text last."""

    rows = "lines"

    def __init__(self, out: TextIO, eos_id: int, *, several: bool, oov_penalty: float | None = None) -> None:
        score = () if oov_penalty is None else ("score",)
        super().__init__(out, (*LINE_COLUMNS, *score, "text"), several=several)
        self._eos_id = eos_id
        self._oov_penalty = oov_penalty

    def _cells(self, piece: Piece) -> Iterator[tuple[object, ...]]:
        for number, line in piece.lines(self._eos_id):
            figures = score_of(line.likelihood, self._oov_penalty)
            sums = (figures.log_likelihood, figures.perplexity, *(() if figures.score is None else (figures.score,)))
            shown_ = ("" if value is None else f"{value:.6f}" for value in sums)
            yield (number, figures.token_count, figures.oov_count, *shown_, line.text.translate(_HARMLESS))


class Json:
    """One document: the model, every word or every line, and the figures of all texts together."""

    def __init__(
        self,
        out: TextIO,
        model: ModelIdentity,
        eos_id: int,
        *,
        lines: bool,
        several: bool,
        oov_penalty: float | None = None,
    ) -> None:
        self._out = out
        self._oov_penalty = oov_penalty
        self._eos_id = eos_id
        self._lines = lines
        self._several = several
        kind = "lines" if lines else "words"
        self._before = f'{{\n  "model": {json.dumps(model.model_dump())},\n  "{kind}": ['
        self._separator = self._before + "\n    "

    def add(self, file: str, piece: Piece) -> None:
        """Write its words or lines, one a line."""
        name = {"file": file} if self._several else {}
        for entry in self._entries_of_lines(piece) if self._lines else _entries_of_words(piece):
            self._out.write(self._separator + json.dumps(name | entry))
            self._before, self._separator = "", ",\n    "

    def end(self, total: Likelihood) -> None:
        """Write the figures."""
        self._out.write(f"{self._before}\n  ]")
        for name, value in self._figures(total).items():
            self._out.write(f',\n  "{name}": {json.dumps(value)}')
        self._out.write("\n}\n")

    def _entries_of_lines(self, piece: Piece) -> Iterator[dict[str, Any]]:
        for number, line in piece.lines(self._eos_id):
            yield {"line": number, **self._figures(line.likelihood)}

    def _figures(self, likelihood: Likelihood) -> dict[str, Any]:
        return score_of(likelihood, self._oov_penalty).model_dump(exclude_unset=True)


class LinesTable:
    """A table of lines, for people."""

    def __init__(self, model: ModelIdentity, eos_id: int, *, several: bool, oov_penalty: float | None = None) -> None:
        self._eos_id = eos_id
        self._several = several
        self._oov_penalty = oov_penalty
        self._table = Table(*(["file"] if several else []), caption=f"{shown(model.name)}, {model.precision}")
        score = () if oov_penalty is None else ("score",)
        for name in ("line", "tokens", "unknown", "log-\nlikelihood", "perplexity", *score):
            self._table.add_column(name, justify="right", min_width=NARROWEST.get(name, len(name)))
        self._table.add_column("text", overflow="ellipsis", no_wrap=True)

    def add(self, file: str, piece: Piece) -> None:
        """Add its lines."""
        name = [shown(file)] if self._several else []
        for number, line in piece.lines(self._eos_id):
            self._table.add_row(*name, str(number), *self._cells(line.likelihood), shown(line.text[:WIDEST]))

    def end(self, total: Likelihood) -> None:
        """Print it."""
        self._table.add_section()
        self._table.add_row(*([""] if self._several else []), "all", *self._cells(total), style="bold")
        print_table(self._table)

    def _cells(self, figures: Likelihood) -> Iterator[str]:
        yield str(figures.token_count)
        yield str(figures.oov_count)
        yield f"{figures.log_likelihood:.2f}"
        yield in_digits(figures.perplexity)
        if self._oov_penalty is not None:
            yield f"{figures.score(self._oov_penalty):.2f}"


def _entries_of_words(piece: Piece) -> Iterator[dict[str, Any]]:
    for word in piece.words():
        entropy = {} if word.entropy is None else {"entropy": word.entropy}
        yield {"line": word.line, "position": word.position, **asdict(word.score), **entropy}


def in_digits(perplexity: float | None) -> str:
    """A perplexity for people."""
    return "-" if perplexity is None else f"{perplexity:.2f}"
