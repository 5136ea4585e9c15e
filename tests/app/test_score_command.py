"""`pru score`: rows of words, which are those of `POST /perplexity`, of one text or many, however long."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from app import long_text
from tests.app.commands import run, run_in_terminal
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
    found, said = scored(monkeypatch, capsys, tmp_path / "text.txt", "--keep-blank-lines")
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
    arguments = ["score", tmp_path / "text.txt", "--json", "--eos" if eos else "--no-eos", "--keep-blank-lines"]
    assert run(monkeypatch, *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    total = asked(text=text, include_eos=eos)["total"]
    assert {name: document[name] for name in total} == pytest.approx(total)
    assert [(str(word["line"]), str(word["position"]), word["word"]) for word in document["words"]] == numbered(text)


@pytest.mark.parametrize("piece", [1, 6, 1 << 14])
@pytest.mark.parametrize("eos", ["--eos", "--no-eos"])
@pytest.mark.parametrize("text", ["", "\n \n", "\n\nthe sea", "the\n\n", "the\n \n\r\n\n sea is\n\n\nsmall  \n \n"])
def test_blank_lines_are_no_tokens_unless_they_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    eos: str,
    piece: int,
) -> None:
    monkeypatch.setattr(long_text, "PIECE", piece)
    (tmp_path / "text.txt").write_bytes(text.encode())
    without = "\n".join(line for line in text.split("\n") if line.strip())
    total = asked(text=without, include_eos=eos == "--eos")["total"]
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--json", eos) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: document[name] for name in total} == pytest.approx(total)
    # Words have their places in the file all the same.
    assert [(str(word["line"]), str(word["position"]), word["word"]) for word in document["words"]] == numbered(text)
    assert [text[word["start"] : word["end"]] for word in document["words"]] == text.split()


@pytest.mark.parametrize("option", [[], ["--keep-blank-lines"]])
def test_the_lines_that_are_shown_are_those_that_are_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, option: list[str]
) -> None:
    (tmp_path / "text.txt").write_text("the sea\n\nis small\n\n")
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--lines", "--json", *option) == 0
    document = json.loads(capsys.readouterr().out)
    assert [line["line"] for line in document["lines"]] == ([1, 2, 3, 4] if option else [1, 3])
    for name in ("token_count", "log_likelihood"):
        assert sum(line[name] for line in document["lines"]) == pytest.approx(document[name])


def test_json_holds_the_services_words_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--json", "--keep-blank-lines") == 0
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


def test_a_penalty_for_unknown_words_gives_every_line_and_all_together_a_score(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = ["the harbour is small", "the Zanzibar is Zanzibarra"]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    arguments = ["score", tmp_path / "text.txt", "--each-line", "--lines", "--oov-penalty", "2.5"]
    assert run(monkeypatch, *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    answer = asked(texts=lines, oov_penalty=2.5)
    assert [line["score"] for line in document["lines"]] == pytest.approx([one["score"] for one in answer["results"]])
    assert document["score"] == pytest.approx(answer["total"]["score"])
    assert document["score"] == pytest.approx(document["log_likelihood"] - 5)


def test_a_row_of_lines_is_a_line_with_its_figures_and_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = ['the harbour "is" small', "the Zanzibar's\tsea", "the sea"]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    out = tmp_path / "lines.tsv"
    arguments = [tmp_path / "text.txt", "--each-line", "--lines"]
    found, said = scored(monkeypatch, capsys, *arguments)
    answer = asked(texts=lines)
    assert list(found[0]) == ["line", "token_count", "oov_count", "log_likelihood", "perplexity", "text"]
    assert [row["text"] for row in found] == [line.replace("\t", "\N{REPLACEMENT CHARACTER}") for line in lines]
    assert [row["line"] for row in found] == ["1", "2", "3"]
    for row, result in zip(found, answer["results"], strict=True):
        for name in ("token_count", "oov_count", "log_likelihood", "perplexity"):
            assert float(row[name]) == pytest.approx(result[name], abs=5e-7)
    assert said.startswith(f"tiny, float32: 3 lines, {answer['total']['token_count']} tokens, 1 unknown, perplexity ")

    # To a file, with the score where it was asked for.
    assert run(monkeypatch, "score", *arguments, "--oov-penalty", "2.5", "--out", out) == 0
    assert capsys.readouterr().out == ""
    with_score = rows(out.read_text(encoding="utf-8"))
    assert list(with_score[0])[-2:] == ["score", "text"]
    assert float(with_score[1].pop("score")) == pytest.approx(float(found[1]["log_likelihood"]) - 2.5, abs=2e-6)
    assert with_score[1] == found[1]


def test_a_line_without_each_line_is_what_follows_the_lines_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the harbour\nthe sea\n")
    found, _ = scored(monkeypatch, capsys, tmp_path / "text.txt", "--lines")
    after = asked(text="the sea", context="the harbour\n")["results"][0]["log_likelihood"]
    assert float(found[1]["log_likelihood"]) == pytest.approx(after, abs=1e-5)
    assert abs(after - asked(text="the sea")["results"][0]["log_likelihood"]) > 0.01


def test_the_table_of_lines_has_what_the_rows_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("the harbour\nZanzibar\n")
    arguments = ["score", tmp_path / "text.txt", "--lines", "--oov-penalty", "2.5"]
    found, _ = scored(monkeypatch, capsys, *arguments[1:])
    assert run_in_terminal(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.count("│") > 2]
    for cells, row in zip(table, found, strict=False):
        figures = [f"{float(row[name]):.2f}" for name in ("log_likelihood", "perplexity", "score")]
        assert cells == [row["line"], row["token_count"], row["oov_count"], *figures, row["text"]]
    assert [cells[0] for cells in table] == ["1", "2", "all"]
    assert float(table[2][5]) == pytest.approx(sum(float(row["score"]) for row in found), abs=0.006)
    assert "likelihood" in printed


def test_places_count_a_carriage_return_and_no_byte_order_mark_and_words_like_na_are_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfthe NA\r\nNULL nan don't\r\n")
    found, _ = scored(monkeypatch, capsys, tmp_path / "text.txt")
    places = [(row["word"], row["start"], row["end"]) for row in found]
    assert places == [
        ("the", "0", "3"),
        ("NA", "4", "6"),
        ("NULL", "8", "12"),
        ("nan", "13", "16"),
        ("don't", "17", "22"),
    ]


@pytest.mark.parametrize("each_line", [[], ["--each-line"]])
def test_an_entropy_is_that_in_the_place_of_a_words_first_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, each_line: list[str]
) -> None:
    monkeypatch.setattr(long_text, "PIECE", 1)
    monkeypatch.setattr(long_text, "CHUNK", 2)
    lines = ["the harbour's Zanzibar", "the well-known sea"]
    (tmp_path / "text.txt").write_text("\n\n".join(lines))
    arguments = [tmp_path / "text.txt", "--entropy", *each_line]
    found, _ = scored(monkeypatch, capsys, *arguments)
    expected = []
    fields = {"return_tokens": True, "return_entropies": True}
    for text in lines if each_line else ["\n".join(lines)]:
        [result] = asked(text=text, **fields)["results"]
        by_start = {
            token["start"]: entropy
            for token, entropy in reversed(list(zip(result["tokens"], result["entropies"], strict=True)))
        }
        expected += [by_start[word["start"]] for word in result["words"] if word["word"].strip()]
    assert [float(row["entropy"]) for row in found] == pytest.approx(expected, abs=5e-6)
    assert run(monkeypatch, "score", *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [word["entropy"] for word in document["words"]] == pytest.approx(expected, abs=5e-6)


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
    assert "none.txt cannot be read" in only_line(capsys)
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
    record = json.loads((tmp_path / "words.tsv.json").read_text(encoding="utf-8"))
    answer = asked(text="\n".join(CORPUS))
    assert record["model"] == answer["model"]
    assert record["files"] == [str(tmp_path / "text.txt")]
    assert (record["each_line"], record["keep_blank_lines"], record["include_eos"]) == (False, False, True)
    assert {name: record[name] for name in ("log_likelihood", "token_count", "oov_count")} == pytest.approx(
        {name: answer["total"][name] for name in ("log_likelihood", "token_count", "oov_count")}
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", record["version"])
    assert run(monkeypatch, "score", tmp_path / "text.txt") == 0
    assert capsys.readouterr().out == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "-"], "standard input can be read once; give - once"),
        (["text.txt", "--out", "none/words.tsv"], "none/words.tsv cannot be written: No such file or directory; "),
        (["text.txt", "--each-line", "--keep-blank-lines"], "with --each-line a blank line is no text; "),
        (["text.txt", "--lines", "--entropy"], "--entropy is of words; leave --lines away"),
        (["text.txt", "--oov-penalty", "6"], "--oov-penalty adds a score of lines or texts, not words; "),
        (["text.txt", "--lines", "--oov-penalty", "-1"], "--oov-penalty is -1; give nats from 0 to 1000"),
        (["text.txt", "--lines", "--oov-penalty", "nan"], "--oov-penalty is nan; give nats from 0 to 1000"),
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
