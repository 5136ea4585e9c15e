"""What is said of a text before it is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.checkpoint import read_record
from model.conventions import Convention
from model.vocabulary import Vocabulary
from tests.commands import exit_status
from tests.training.conftest import SENTENCES
from training.cli import main
from training.coverage import coverage, doubt
from training.data import Data

THAI = "ฉันไปโรงเรียนทุกวันและเรียนภาษาไทยกับเพื่อนของฉัน"
"""A sentence of ten words, 49 characters without a blank: "I go to school every day and learn Thai with my friends"."""


def data(train: list[str], valid: list[str], *, min_count: int = 1) -> Data:
    vocabulary = Vocabulary.from_lines(train, Convention.PLAIN, min_count=min_count)
    ids = [vocabulary.encode("\n".join(lines)) for lines in (train, valid)]
    return Data("own", {}, vocabulary, ids[0], ids[1], None)


def test_the_vocabulary_and_what_it_leaves_out_are_said() -> None:
    assert coverage(data(["a a b"], ["a c", "c c"])) == (
        "a vocabulary of 4 words; unknown are 0.0% of train, 50.0% of valid"
    )


@pytest.mark.parametrize(("known", "warned"), [(4, False), (3, True)])
def test_more_than_a_fifth_of_validation_unknown_is_warned_of(known: int, warned: bool) -> None:
    # With the line's end, known tokens are four of five, or three of four.
    valid = " ".join(["the"] * (known - 1) + ["zebra"])
    said = doubt(data(SENTENCES, [valid]), valid)
    assert (said is not None) == warned
    if said:
        assert said.startswith("warning: 25% of validation is unknown: segment text")
        assert "lower --min-count" in said


def test_text_without_blanks_is_warned_of_even_where_all_of_it_is_known() -> None:
    said = doubt(data([THAI], [THAI]), THAI)
    assert said is not None
    assert said.startswith("warning: words have 49 characters on average: segment text whose script puts no blanks")


def test_marks_are_no_words() -> None:
    assert doubt(data(["!" * 40], ["!" * 40]), "!" * 40) is None


def test_the_command_warns_in_one_line_on_standard_error_and_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("".join(f"{number}{THAI}\n{THAI}\n" for number in range(200)))
    sizes = ("embedding_size=8", "hidden_size=16")
    settings = [part for size in sizes for part in ("--set", f"model.{size}")]
    options = ("--data", text, "--out", out, "--epochs", "1", *settings, "--set", "recipe.bptt=5")
    assert exit_status(monkeypatch, main, "train", *options) == 0
    printed = capsys.readouterr()
    [line] = [line for line in printed.err.splitlines() if line.startswith("warning:")]
    record = read_record(out)
    share = record["unknown_tokens"]["valid"] / record["tokens"]["valid"]
    assert line.startswith(f"warning: {share:.0%} of validation is unknown and words have 50 characters on average: ")
    assert printed.out == ""
    assert record["finished"]
