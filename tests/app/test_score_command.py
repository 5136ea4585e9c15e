"""`pru score`: rows of words, which are those of `POST /perplexity`, of one text or many, however long."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from app import long_text
from tests.app.commands import run
from tests.app.fakes import CORPUS, fake_model
from tests.app.scored import asked, check_against_service, numbered, scored
from tests.commands import only_line

TEXT = 'The harbour\'s "small"\tboat is  red,\r\n\n  the well-known Zanzibar \N{SHIP}.\n \nthe sea  \n'


@pytest.fixture(autouse=True)
def _small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.served_model.open_model", lambda settings: fake_model())


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
