"""The rows of a corpus's files: JSON Lines or Parquet, a text each, from anywhere in a file.

Boundary: files in, texts out, one after another, so that a file may be larger than memory. An error names file and row;
rows count from 1. In JSON Lines a row is a line with an object whose `text` is a string, and blank lines are none; in
Parquet the column `text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from itertools import count as counted
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import TextError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

JSON_LINES, PARQUET = ".jsonl", ".parquet"
COLUMN = "text"
Row = bytes | str | None
"""A line of JSON Lines, or a value of Parquet's column."""
MOST_BYTES = 64 << 20
"""Bytes of a row's line or text: it is held in memory whole, and its tokens with it."""
TOGETHER = 1024
"""Rows that are decoded from Parquet at once."""


def raw_rows(file: Path, offset: int = 0, first: int = 1, count: int | None = None) -> Iterator[Row]:
    """The rows of a file as they are in it, from row `first` on, which begins at byte `offset`; `count` of them or all.

    Raises `TextError` where the file cannot be read, or a row is too long to be held in memory.
    """
    if file.suffix == JSON_LINES:
        return islice(raw_lines(file, offset, first), count)
    return raw_texts(file, first, count)


def texts_of(rows: Iterable[Row], file: Path, first: int) -> Iterator[str]:
    """Texts of rows of a file, from row `first` on; `TextError` for one that is malformed."""
    for row, raw in enumerate(rows, start=first):
        if raw is None:
            raise TextError(f"{file}, row {row}: the text is null; mend or leave out this row")
        yield _text_of_line(raw, file, row) if isinstance(raw, bytes) else raw


def raw_lines(file: Path, offset: int = 0, first: int = 1) -> Iterator[bytes]:
    """The lines of a file from a byte on, which is where row `first` begins; blank ones go with the next other."""
    with _opened(file) as source:
        source.seek(offset)
        for row in counted(first):
            line, more = bytearray(), b" "
            while more.isspace():
                more = source.readline(MOST_BYTES + 1 - len(line))
                line += more
                if len(line) > MOST_BYTES:
                    raise too_long(file, row)
            if not more:
                return
            yield bytes(line)


def raw_texts(file: Path, first: int = 1, count: int | None = None) -> Iterator[str | None]:
    """The column `text` as it is, from row `first` on, `count` rows or all."""
    import pyarrow as pa  # noqa: PLC0415 - of the extra `ray`

    row = first
    try:
        with _parquet(file) as opened:
            groups, skipped = _groups(opened, first, count)
            batches = opened.iter_batches(TOGETHER, row_groups=groups, columns=[COLUMN])
            values = chain.from_iterable(batch.column(0) for batch in batches)
            for value in islice(values, skipped, None if count is None else skipped + count):
                text: str | None = value.as_py()
                if text is not None and len(text) > MOST_BYTES:
                    raise too_long(file, row)
                yield text
                row += 1
    except UnicodeDecodeError:
        raise TextError(f"{file}, row {row}: the text is not UTF-8; mend or leave out this row") from None
    except (pa.ArrowException, OSError) as problem:
        reason = str(problem).partition("\n")[0]
        raise TextError(
            f"{file}, row {row} or after it: it cannot be read as Parquet ({reason}); write it again"
        ) from None


def too_long(file: Path, row: int) -> TextError:
    """What is said of a row that is not to be held in memory."""
    return TextError(f"{file}, row {row}: it has more than {MOST_BYTES >> 20} MiB; divide its text among several rows")


def _text_of_line(line: bytes, file: Path, row: int) -> str:
    where = f"{file}, row {row}"
    try:
        value: Any = json.loads(line.decode("utf-8-sig" if row == 1 else "utf-8"))
    except UnicodeDecodeError:
        raise TextError(f"{where}: it is not UTF-8; mend or leave out this row") from None
    except (ValueError, RecursionError) as problem:
        reason = problem.msg if isinstance(problem, json.JSONDecodeError) else "nested too deeply, or a number too long"
        raise TextError(f"{where}: it is not valid JSON ({reason}); mend or leave out this row") from None
    text = value.get(COLUMN) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise TextError(f'{where}: it is no object with a string as its "{COLUMN}"; mend or leave out this row')
    if not _is_unicode(text):
        raise TextError(f"{where}: its text holds half a surrogate pair; mend or leave out this row")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _opened(file: Path) -> Any:
    try:
        return file.open("rb")
    except OSError as problem:
        raise TextError(f"{file} cannot be read: {problem.strerror}") from None


def _parquet(file: Path) -> pq.ParquetFile:
    """An open Parquet file with a column of texts."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    opened = pq.ParquetFile(file)
    schema = opened.schema_arrow
    place = schema.get_field_index(COLUMN)
    found = schema.field(place).type if place >= 0 else pa.null()
    if pa.types.is_dictionary(found):
        found = found.value_type
    if not any(kind(found) for kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        opened.close()
        raise TextError(f"{file} has no column of strings named {COLUMN!r}; rename the column with the texts")
    return opened


def _groups(opened: pq.ParquetFile, first: int, count: int | None) -> tuple[list[int], int]:
    """The row groups that hold some rows, and how many other rows come before these."""
    begin, end = first - 1, opened.metadata.num_rows if count is None else first - 1 + count
    groups: list[int] = []
    skipped = start = 0
    for group in range(opened.num_row_groups):
        stop = start + opened.metadata.row_group(group).num_rows
        if start < end and stop > begin:
            skipped = skipped if groups else begin - start
            groups.append(group)
        start = stop
    return groups, skipped
