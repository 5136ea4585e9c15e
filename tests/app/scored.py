"""What `pru score` prints, read as a program reads it, and what the service answers of the same text."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from tests.app.commands import run
from tests.app.serving import serving


def asked(**fields: Any) -> Any:
    """What the service answers to `POST /perplexity`."""
    with serving() as client:
        return client.post("/perplexity", json={"return_words": True, **fields}).json()


def rows(tsv: str) -> list[dict[str, str]]:
    """The rows as a program reads them that knows the dialect."""
    return list(csv.DictReader(io.StringIO(tsv), dialect="excel-tab"))


def numbered(text: str) -> list[tuple[str, str, str]]:
    """Line, position and content of every word, found by splitting."""
    return [
        (str(line), str(position), word)
        for line, content in enumerate(text.split("\n"), start=1)
        for position, word in enumerate(content.split(), start=1)
    ]


def scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[list[dict[str, str]], str]:
    """Rows and the line on standard error."""
    assert run(monkeypatch, "score", *arguments) == 0
    printed = capsys.readouterr()
    return rows(printed.out), printed.err


def check_against_service(found: list[dict[str, str]], answer: list[dict[str, Any]], offset: int = 0) -> None:
    """Every row is the answer's entry of that word."""
    words = [word for word in answer if word["word"].strip()]
    assert len(found) == len(words)
    for row, word in zip(found, words, strict=True):
        assert row["word"] == word["word"]
        assert (int(row["start"]), int(row["end"])) == (word["start"] + offset, word["end"] + offset)
        assert float(row["surprisal"]) == pytest.approx(word["surprisal"], abs=5e-7)
        assert (int(row["token_count"]), bool(int(row["oov"]))) == (word["token_count"], word["oov"])
