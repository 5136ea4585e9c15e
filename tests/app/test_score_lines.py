"""`pru score --lines`: rows of lines, which are those of `POST /perplexity`, and a table of them in a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.app.commands import run, run_in_terminal
from tests.app.fakes import fake_model
from tests.app.scored import asked, rows, scored


@pytest.fixture(autouse=True)
def _small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.served_model.open_model", lambda settings: fake_model())


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
