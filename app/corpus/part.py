"""One part of a corpus: its texts scored, and its file of Parquet.

Boundary: a part in, a file out, whole or not at all. Its bytes follow from the texts, the model and the versions of the
libraries, and from nothing else.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from app.corpus.plan import hashed, sha256_of_units
from app.corpus.rows import Row, raw_rows, texts_of
from app.scoring import Likelihood, total
from model.errors import ConfigurationError, TextError
from model.files import written_atomically

if TYPE_CHECKING:
    from app.corpus.plan import Part
    from app.corpus.scorer import Scorer

SCHEMA = pa.schema(
    [
        pa.field("file", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("token_count", pa.int32(), nullable=False),
        pa.field("oov_count", pa.int32(), nullable=False),
        pa.field("log_likelihood", pa.float64(), nullable=False),
        pa.field("perplexity", pa.float64()),
        pa.field("perplexity_without_oov", pa.float64()),
    ]
)
"""The figures of `POST /perplexity` for each text, and where it stands: rows count from 1."""
SCORE = pa.field("score", pa.float64(), nullable=False)
"""A column more where a run has an `oov_penalty`."""
_KEY = b"pru"


@dataclass(frozen=True)
class Summary:
    """What a part's file says of itself."""

    sha256: str
    """Of the rows that were scored."""
    rows: int
    likelihood: Likelihood
    """Of all its texts together."""


def score_part(scorer: Scorer, folder: Path, part: Part, out: Path, oov_penalty: float | None = None) -> Summary:
    """Score a part and put its file into `out`; with a penalty, each text's `Likelihood.score` too.

    Raises `TextError` for a row that is malformed, or rows that are others than were planned; nothing is written then.
    """
    units: list[bytes] = []
    try:
        figures = list(scorer.score(texts_of(_read(folder, part, units), folder / part.file, part.first)))
    except TextError:
        # In a file that has changed, rows begin elsewhere, and say nothing of what is wrong.
        units.clear()
        deque(_read(folder, part, units), maxlen=0)
        _check(units, folder, part)
        raise
    _check(units, folder, part)
    summary = Summary(part.sha256, part.rows, total(figures))
    schema = SCHEMA.with_metadata({_KEY: json.dumps(asdict(summary), sort_keys=True).encode()})
    table = pa.Table.from_pydict(
        {
            "file": pa.DictionaryArray.from_arrays(pa.array([0] * len(figures), pa.int32()), [part.file]),
            "row": range(part.first, part.first + len(figures)),
            "token_count": [one.token_count for one in figures],
            "oov_count": [one.oov_count for one in figures],
            "log_likelihood": [one.log_likelihood for one in figures],
            "perplexity": [one.perplexity for one in figures],
            "perplexity_without_oov": [one.perplexity_without_oov for one in figures],
        },
        schema,
    )
    if oov_penalty is not None:
        table = table.append_column(SCORE, pa.array([one.score(oov_penalty) for one in figures], pa.float64()))
    with written_atomically(out / part.name) as file:
        pq.write_table(table, file, compression="zstd")
    return summary


def read_summary(file: Path) -> Summary:
    """What a part's file says of itself; `ConfigurationError` where it is none."""
    try:
        found = json.loads((pq.read_schema(file).metadata or {})[_KEY])
        return Summary(found["sha256"], found["rows"], Likelihood(**found["likelihood"]))
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError):
        raise ConfigurationError(f"{file} is no part of a run, or damaged; remove it to have it scored again") from None


def _read(folder: Path, part: Part, units: list[bytes]) -> Iterator[Row]:
    return hashed(raw_rows(folder / part.file, part.offset, part.first, part.rows), units)


def _check(units: list[bytes], folder: Path, part: Part) -> None:
    if sha256_of_units(units) != part.sha256:
        raise TextError(
            f"{folder / part.where}, have changed since the command began; run it again when nobody writes to the file"
        )
