"""The command line, in this process and around a small model."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from model.errors import BundleError
from tests.app.commands import run, run_in_terminal
from tests.app.fakes import CORPUS, fake_model
from tests.app.serving import serving


@pytest.fixture(autouse=True)
def _small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.served_model.open_model", lambda settings: fake_model())
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")


def test_predict_prints_the_best_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "predict", "the harbour", "-k", "3") == 0
    with serving() as client:
        answer = client.post("/predict", json={"text": "the harbour", "k": 3}).json()
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "0." in line]
    assert len(rows) == 3
    for row, prediction in zip(rows, answer["predictions"], strict=True):
        assert prediction["word"] in row
        assert f"{prediction['probability']:.4f}" in row
    assert "2 tokens read" in printed


def test_predict_answers_programs_as_the_service_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "predict", "the", "--json", "--prefix", "ca", "--words-only", "--include-special") == 0
    fields = {"text": "the", "k": 10, "prefix": "ca", "words_only": True, "include_special": True}
    with serving() as client:
        assert json.loads(capsys.readouterr().out) == client.post("/predict", json=fields).json()


def test_score_gives_the_whole_texts_perplexity_and_each_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    text = "\n".join(["the harbour is small", "", "Zanzibar is not", "the sea"]) + "\n"
    file.write_text(text)
    assert run(monkeypatch, "score", str(file), "--lines", "--json", "--keep-blank-lines") == 0
    scored = json.loads(capsys.readouterr().out)
    with serving() as client:
        answer = client.post("/perplexity", json={"text": text, "return_tokens": True}).json()
    assert scored["model"] == answer["model"]
    assert {name: scored[name] for name in answer["total"]} == answer["total"]
    assert [line["line"] for line in scored["lines"]] == [1, 2, 3, 4]
    assert [line["token_count"] for line in scored["lines"]] == [5, 1, 4, 3]
    assert [line["oov_count"] for line in scored["lines"]] == [0, 0, 1, 0]
    third = answer["results"][0]["tokens"][6:10]
    assert scored["lines"][2]["log_likelihood"] == pytest.approx(sum(token["log_probability"] for token in third))

    assert run_in_terminal(monkeypatch, "score", str(file), "--lines", "--keep-blank-lines") == 0
    table = capsys.readouterr().out
    assert f"{scored['perplexity']:.2f}" in table
    assert f"{scored['log_likelihood']:.2f}" in table
    assert "Zanzibar is not" in table


def test_score_can_leave_the_final_eos_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("the sea")
    assert run(monkeypatch, "score", str(file), "--json", "--no-eos") == 0
    assert json.loads(capsys.readouterr().out)["token_count"] == 2


def test_score_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfthe sea\n")))
    assert run(monkeypatch, "score", "-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["token_count"] == 3


def test_score_of_an_empty_text_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"")
    assert run_in_terminal(monkeypatch, "score", str(file), "--lines", "--no-eos") == 0
    assert "-" in capsys.readouterr().out
    assert run(monkeypatch, "score", str(file), "--json", "--no-eos") == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] is None


def test_score_takes_text_that_looks_like_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("[red] is left [/red]\n" + "\n".join(CORPUS))
    assert run_in_terminal(monkeypatch, "score", str(file), "--lines") == 0
    assert "[red] is left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "the", "-k", "0"], "k: Input should be greater than or equal to 1"),
        (["predict", "the", "-k", "1000000000"], "k: Input should be less than or equal to 100"),
        (["predict", "the", "--prefix", "a b"], "prefix: A prefix should be part of one word"),
        (["predict", "a\udcffb"], "text: Text should be well-formed Unicode"),
        (["score", "nowhere.txt"], "nowhere.txt cannot be read: No such file or directory"),
        (["score", "."], ". cannot be read: Is a directory"),
        (["score", "latin.txt"], "latin.txt is not UTF-8 (line 1, byte 3)"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"caf\xe9")
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")
    assert len(printed.err.splitlines()) == 1


def test_a_broken_bundle_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise BundleError("manifest.json is missing; restore it")

    monkeypatch.setattr("app.served_model.open_model", broken)
    for arguments in (["predict", "the"], ["serve"], []):
        assert run(monkeypatch, *arguments) == 2
        assert capsys.readouterr().err == "error: manifest.json is missing; restore it\n"


def test_a_wrong_setting_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRU_PORT", "http")
    assert run(monkeypatch) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: PRU_PORT: ")


@pytest.mark.parametrize("arguments", [["predict"], ["predict", "a", "b"], ["predict", "a", "-k", "x"], ["fly"]])
def test_a_wrong_command_is_status_2(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert run(monkeypatch, *arguments) == 2
