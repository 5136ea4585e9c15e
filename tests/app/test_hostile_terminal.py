"""Hostile text and files in a terminal: figures, or one line that says what is wrong and status 2."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.served_model import ServedModel
from tests.app.commands import run, run_in_terminal
from tests.app.fakes import fake_model
from tests.app.serving import serving
from tests.app.test_hostile_requests import CONTROLS, IndifferentEngine, log_probability
from tests.commands import only_line


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> ServedModel:
    """The model that every command opens."""
    model = fake_model(build=IndifferentEngine)
    monkeypatch.setattr("app.served_model.open_model", lambda _: model)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    return model


def scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> dict[str, Any]:
    """What `score --json` says of a file of this text, and that the tables can be written too."""
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    assert run_in_terminal(monkeypatch, "score", file, "--lines") == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5
    assert run(monkeypatch, "score", file) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert {line.count("\t") for line in [header, *rows]} == {7}
    assert run(monkeypatch, "score", file, "--lines") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert {line.count("\t") for line in [header, *rows]} == {5}
    assert run(monkeypatch, "score", file, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("small_model")
def test_a_line_of_a_megabyte_is_scored_and_so_are_ten_thousand_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    for pairs, lines in ((90_000, 1), (1, 10_000)):
        file.write_text(("the harbour " * pairs + "\n") * lines)
        assert run(monkeypatch, "score", file, "--lines", "--json") == 0
        figures = json.loads(capsys.readouterr().out)
        each = pairs * (log_probability("the") + log_probability("harbour")) + log_probability("<eos>")
        assert figures["token_count"] == lines * (2 * pairs + 1)
        assert figures["log_likelihood"] == pytest.approx(lines * each, rel=1e-6)
        assert len(figures["lines"]) == lines


@pytest.mark.usefixtures("small_model")
def test_a_text_of_more_tokens_than_a_request_may_have_is_scored_since_nobody_else_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PRU_MAX_TOKENS", "10")
    assert scored(monkeypatch, capsys, tmp_path, "the sea " * 100)["token_count"] == 201


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize("character", ["a", "-", ".", "🚢", "漢", "["])
def test_a_million_characters_without_a_blank_are_one_unknown_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, character: str
) -> None:
    text = character * 1_000_000
    figures = scored(monkeypatch, capsys, tmp_path, text)
    assert (figures["token_count"], figures["oov_count"]) == (2, 1)
    assert run(monkeypatch, "predict", "--json", "--", text) == 0
    assert json.loads(capsys.readouterr().out)["token_count"] == 1


@pytest.mark.usefixtures("small_model")
def test_a_text_without_a_known_word_has_a_perplexity_but_none_without_unknown_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("Zanzibar Tanganyika")
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--no-eos", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["token_count"], figures["oov_count"]) == (2, 2)
    assert figures["log_likelihood"] == pytest.approx(2 * log_probability("<unk>"), rel=1e-6)
    assert figures["perplexity_without_oov"] is None
    assert run(monkeypatch, "predict", "Zanzibar Tanganyika", "--json") == 0
    assert json.loads(capsys.readouterr().out)["token_count"] == 2


@pytest.mark.usefixtures("small_model")
def test_control_characters_and_emoji_are_scored_as_they_are_over_http(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, small_model: ServedModel
) -> None:
    text = "".join(f"the{control}harbour {control} 🚢 " for control in CONTROLS if control != "\0")
    figures = scored(monkeypatch, capsys, tmp_path, text)
    with serving(small_model) as client:
        answer = client.post("/perplexity", json={"text": text}).json()
    assert {name: figures[name] for name in answer["total"]} == answer["total"]


@pytest.mark.usefixtures("small_model")
def test_no_control_character_of_a_text_reaches_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("".join(f"the{control}sea " for control in CONTROLS if control not in "\0\n\r").encode())
    assert run_in_terminal(monkeypatch, "score", file, "--lines") == 0
    table = capsys.readouterr().out
    assert "the" in table
    assert set(table) & set(CONTROLS) == {"\n"}
    for options in ([], ["--lines"]):
        assert run(monkeypatch, "score", file, *options) == 0
        rows = capsys.readouterr().out
        assert "the\N{REPLACEMENT CHARACTER}sea" in rows
        assert set(rows) & set(CONTROLS) == {"\n", "\t"}


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the \0 sea", "is not text (it holds NUL bytes)"),
        ("the sea".encode("utf-16"), "is not text (it holds NUL bytes)"),
        ("the sea".encode("utf-32"), "is not text (it holds NUL bytes)"),
        (b"\x89PNG\r\n\x1a\n\x01", "is not UTF-8"),
        (b"the \xed\xa0\x80 sea", "is not UTF-8"),
        ("the caf\xe9".encode("latin-1"), "is not UTF-8"),
        ("the sea é".encode("cp037"), "is not UTF-8"),
    ],
    ids=["nul", "utf-16", "utf-32", "binary", "surrogate", "latin-1", "ebcdic"],
)
def test_what_is_not_utf_8_text_is_one_line_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes,
    message: str,
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    assert run(monkeypatch, "score", file) == 2
    line = only_line(capsys)
    assert line.startswith(f"error: {file} {message}")
    assert "UTF-8" in line
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run(monkeypatch, "score", "-") == 2
    assert message in only_line(capsys)


@pytest.mark.usefixtures("small_model")
def test_a_standard_input_that_is_closed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What Python makes of `pru score - <&-`.
    monkeypatch.setattr(sys, "stdin", None)
    assert run(monkeypatch, "score", "-") == 2
    assert "standard input" in only_line(capsys)


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize("k", [10**30, -(10**30), 101])
def test_a_count_of_predictions_beyond_all_measure_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], k: int
) -> None:
    assert run(monkeypatch, "predict", "the", "-k", k) == 2
    assert only_line(capsys).startswith("error: k: Input should be ")
