"""`pru score`: rows of words, which are those of `POST /perplexity`, of one text or many, however long."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app import long_text
from tests.app.commands import run
from tests.app.fakes import CORPUS, fake_model
from tests.app.serving import serving
from tests.commands import only_line

TEXT = 'The harbour\'s "small"\tboat is  red,\r\n\n  the well-known Zanzibar \N{SHIP}.\n \nthe sea  \n'


@pytest.fixture(autouse=True)
def _small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.served_model.open_model", lambda settings: fake_model())


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


@pytest.mark.parametrize("piece", [1, 20, 1 << 14])
def test_a_row_is_a_word_as_typed_with_its_place_and_its_surprisal_in_bits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, piece: int
) -> None:
    monkeypatch.setattr(long_text, "PIECE", piece)
    monkeypatch.setattr(long_text, "CHUNK", 3)
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    found, said = scored(monkeypatch, capsys, tmp_path / "text.txt")
    assert list(found[0]) == ["line", "position", "word", "start", "end", "surprisal", "token_count", "oov"]
    assert [(row["line"], row["position"], row["word"]) for row in found] == numbered(TEXT)
    assert [TEXT[int(row["start"]) : int(row["end"])] for row in found] == TEXT.split()
    answer = asked(text=TEXT)
    check_against_service(found, answer["results"][0]["words"])
    total = answer["total"]
    counts = f"{len(found)} words, {total['token_count']} tokens, {total['oov_count']} unknown"
    assert said == f"tiny, float32: {counts}, perplexity {total['perplexity']:.2f}\n"


@pytest.mark.parametrize("text", ["", "\n", " \n\n ", "the", "the\n \n", "the\n\n\nsea\n\n", "the sea\n  "])
@pytest.mark.parametrize("eos", [True, False])
def test_totals_are_the_services_wherever_a_text_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, eos: bool
) -> None:
    monkeypatch.setattr(long_text, "PIECE", 1)
    (tmp_path / "text.txt").write_text(text)
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--json", "--eos" if eos else "--no-eos") == 0
    document = json.loads(capsys.readouterr().out)
    total = asked(text=text, include_eos=eos)["total"]
    assert {name: document[name] for name in total} == pytest.approx(total)
    assert [(str(word["line"]), str(word["position"]), word["word"]) for word in document["words"]] == numbered(text)


def test_json_holds_the_services_words_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    document = json.loads(printed.out)
    answer = asked(text=TEXT)
    words = [word for word in answer["results"][0]["words"] if word["word"].strip()]
    assert [{name: entry[name] for name in words[0]} for entry in document["words"]] == words
    assert document["model"] == answer["model"]


def test_each_line_can_be_a_text_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(long_text, "TOGETHER", 2)
    lines = ["the harbour is small", "", "the sea \r", "Zanzibar", "the sea"]
    (tmp_path / "text.txt").write_bytes("\n".join(lines).encode())
    found, _ = scored(monkeypatch, capsys, tmp_path / "text.txt", "--each-line")
    assert [(row["line"], row["position"], row["word"]) for row in found] == numbered("\n".join(lines))
    for number, line in enumerate(lines, start=1):
        if line.strip():
            of_line = [row for row in found if row["line"] == str(number)]
            offset = len("\n".join(lines[: number - 1])) + (number > 1)
            check_against_service(of_line, asked(text=line)["results"][0]["words"], offset)
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--each-line", "--lines", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [line["line"] for line in document["lines"]] == [1, 3, 4, 5]
    assert document["perplexity"] == pytest.approx(asked(texts=[line for line in lines if line])["total"]["perplexity"])


def test_several_files_are_named_and_each_starts_afresh(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a\tb.txt").write_text("the sea")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the sea\n")))
    found, said = scored(monkeypatch, capsys, "a\tb.txt", "-")
    assert [row["file"] for row in found] == ["a\N{REPLACEMENT CHARACTER}b.txt"] * 2 + ["-"] * 2
    for file in (found[:2], found[2:]):
        check_against_service(file, asked(text="the sea")["results"][0]["words"])
    assert said.startswith("tiny, float32: 4 words, 6 tokens, 0 unknown, perplexity ")


def test_a_file_is_written_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("\n".join(CORPUS), encoding="utf-8")
    out = tmp_path / "words.tsv"
    out.write_text("before")
    assert run(monkeypatch, "score", tmp_path / "text.txt", tmp_path / "none.txt", "--out", out) == 2
    line = only_line(capsys)
    assert "none.txt cannot be read: No such file or directory; give a file, or - and the text on standard" in line
    assert out.read_text() == "before"

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        assert run(patched, "score", tmp_path / "text.txt", "--out", out) == 2
    assert only_line(capsys) == f"error: {out} cannot be written: No space left on device; give another file by --out"
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "words.tsv"}

    assert run(monkeypatch, "score", tmp_path / "text.txt", "--out", out) == 0
    written, printed = out.read_text(encoding="utf-8"), capsys.readouterr()
    assert printed.out == ""
    assert "words, " in printed.err
    assert run(monkeypatch, "score", tmp_path / "text.txt") == 0
    assert capsys.readouterr().out == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "-"], "standard input can be read once; give - once"),
        (["text.txt", "--out", "none/words.tsv"], "none/words.tsv cannot be written: No such file or directory; "),
        (["text.txt", "--lines", "--out", "x"], "--lines shows a table in the terminal; "),
        (["\x1b[2J\n.txt"], "\N{REPLACEMENT CHARACTER}[2J .txt cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_written_or_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the sea")
    assert run(monkeypatch, "score", *arguments) == 2
    assert only_line(capsys).startswith(f"error: {message}")
