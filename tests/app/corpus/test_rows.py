"""Rows of JSON Lines and of Parquet: the same texts from anywhere, and the row by number where one is malformed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.corpus import rows
from model.errors import TextError

TEXTS = ["the sea", "", "caf\u00e9 \u2028 \N{SHIP}", "a\nb", "x" * 300] * 50


def json_lines(path: Path, texts: list[str] = TEXTS) -> Path:
    """A file of texts, and of fields that are nobody's business."""
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def parquet(path: Path, values: object = TEXTS, kind: object = None, **options: int) -> Path:
    """The same as Parquet, in row groups of seven."""
    pq.write_table(
        pa.table({"id": range(len(TEXTS)), "text": pa.array(values, kind)}), path, row_group_size=7, **options
    )
    return path


def texts(path: Path, first: int = 1, count: int | None = None, offset: int = 0) -> list[str]:
    """Texts of some rows of a file."""
    return list(rows.texts_of(rows.raw_rows(path, offset, first, count), path, first))


@pytest.mark.parametrize(("first", "count"), [(1, 250), (1, 1), (7, 1), (8, 20), (100, 151), (250, 1)])
def test_rows_are_read_from_anywhere(tmp_path: Path, first: int, count: int) -> None:
    wanted = TEXTS[first - 1 : first - 1 + count]
    lines = json_lines(tmp_path / "a.jsonl")
    offset = len(b"".join(lines.read_bytes().splitlines(keepends=True)[: first - 1]))
    assert texts(lines, first, count, offset) == wanted
    assert texts(parquet(tmp_path / "a.parquet"), first, count) == wanted


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_string_is_read(tmp_path: Path, kind: object) -> None:
    assert texts(parquet(tmp_path / "a.parquet", TEXTS, kind)) == TEXTS


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a"', "is not valid JSON"),
        (b'{"text": "\xff"}', "is not UTF-8"),
        (b'["text"]', 'no object with a string as its "text"'),
        (b'{"txt": "a"}', 'no object with a string as its "text"'),
        (b'{"text": 5}', 'no object with a string as its "text"'),
        (b'{"text": "\\ud800"}', "half a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "a number too long"),
    ],
)
def test_a_line_that_is_no_text_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 2 + line + b"\n" + b'{"text": "b"}\n')
    found = rows.texts_of(rows.raw_rows(path), path, 1)
    assert [next(found), next(found)] == ["a", "a"]
    with pytest.raises(TextError) as raised:
        next(found)
    assert str(raised.value).startswith(f"{path}, row 3: ")
    assert words in str(raised.value)


def test_a_line_too_long_is_named_before_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_BYTES", 200)
    with pytest.raises(TextError, match="row 5: it has more than"):
        list(rows.raw_lines(json_lines(tmp_path / "a.jsonl")))
    with pytest.raises(TextError, match="row 5: it has more than"):
        list(rows.raw_texts(parquet(tmp_path / "a.parquet")))


def test_the_last_line_needs_no_end_and_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}')
    assert texts(path) == ["a", "b"]


def test_blank_lines_are_no_rows_and_nothing_of_the_others_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n \t\r\n{"text": "a"}\n\n{"text": "b"}\nno text\n\n  \n')
    raw = list(rows.raw_lines(path, 0))
    assert raw == [b'\n \t\r\n{"text": "a"}\n', b'\n{"text": "b"}\n', b"no text\n"]
    assert texts(path, count=2) == ["a", "b"]
    assert texts(path, 2, 1, offset=len(raw[0])) == ["b"]
    with pytest.raises(TextError, match="row 3: it is not valid JSON"):
        texts(path)
    path.write_bytes(b"\n\n")
    assert list(rows.raw_rows(path)) == []


def test_parquet_that_holds_no_text_is_named(tmp_path: Path) -> None:
    values = [*TEXTS[:9], None, *TEXTS[10:]]
    with pytest.raises(TextError, match="row 10: the text is null"):
        texts(parquet(tmp_path / "a.parquet", values))
    with pytest.raises(TextError, match="no column of strings named 'text'"):
        list(rows.raw_texts(parquet(tmp_path / "b.parquet", list(range(250)))))
    bytes_ = pa.array([b"a", b"\xff", b"c"]).view(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, bytes_.buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "c.parquet")
    with pytest.raises(TextError, match="row 2: the text is not UTF-8"):
        list(rows.raw_texts(tmp_path / "c.parquet"))


def test_parquet_that_is_damaged_is_named(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "a.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[:-100])
    with pytest.raises(TextError, match=r"short\.parquet, row 1 or after it: it cannot be read as Parquet"):
        list(rows.raw_texts(tmp_path / "short.parquet"))
    with pytest.raises(TextError, match=r"none\.jsonl cannot be read: No such file"):
        list(rows.raw_lines(tmp_path / "none.jsonl"))
