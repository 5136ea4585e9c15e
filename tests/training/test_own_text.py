"""Own text: which files are read, and what is held out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from model.errors import CorpusError
from training.own_text import joined_lines, read_own_text


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_the_last_twentieth_of_a_file_is_validation_cut_at_a_line(tmp_path: Path) -> None:
    lines = [f"line {number:04} of a text\n" for number in range(1000)]
    text = read_own_text(put(tmp_path / "book.txt", "".join(lines)))
    assert text.splits == {"train": "".join(lines[:951]), "valid": "".join(lines[951:])}
    assert text.sha256 == {"book.txt": hashlib.sha256("".join(lines).encode()).hexdigest()}


def test_one_line_is_cut_between_words(tmp_path: Path) -> None:
    words = [f"word{number:04}" for number in range(1000)]
    text = read_own_text(put(tmp_path / "line.txt", "  ".join(words)))
    assert text.splits["train"] == "  ".join(words[:950]) + "\n"
    assert text.splits["valid"] == "  ".join(words[950:]) + "\n"


def test_a_line_that_spans_the_cut_is_cut_rather_than_left_whole(tmp_path: Path) -> None:
    text = read_own_text(put(tmp_path / "text.txt", "short\n" + "long " * 1000 + "\nend\n"))
    assert text.splits["train"].split() == ["short", *["long"] * 951]
    assert text.splits["valid"].split() == [*["long"] * 49, "end"]


def test_every_text_of_a_folder_is_read_in_order_and_each_ends_its_line(tmp_path: Path) -> None:
    put(tmp_path / "b.txt", "second " * 60 + "\n")
    put(tmp_path / "a.txt", "\ufefffirst " * 60)
    put(tmp_path / "sub" / "c.txt", "third\n" * 60)
    put(tmp_path / "notes.md", "not read")
    text = read_own_text(tmp_path)
    together = text.splits["train"] + text.splits["valid"]
    assert together == "first " + "\ufefffirst " * 59 + "\n" + "second " * 60 + "\n" + "third\n" * 60
    assert list(text.sha256) == ["a.txt", "b.txt", "sub/c.txt"]


def test_a_folder_s_own_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "train.txt", "learn " * 50)
    put(tmp_path / "other.txt", "not read")
    assert read_own_text(tmp_path).splits["valid"] == "learn learn \n"
    put(tmp_path / "valid.txt", "choose")
    assert read_own_text(tmp_path).splits == {"train": "learn " * 50 + "\n", "valid": "choose\n"}
    put(tmp_path / "test.txt", "report\n")
    assert read_own_text(tmp_path).splits["test"] == "report\n"
    assert list(read_own_text(tmp_path).sha256) == ["train.txt", "valid.txt", "test.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"text\.txt is empty"),
        (b" \n\t\n", r"text\.txt is empty"),
        (b"caf\xe9 au lait\n" * 100, r"text\.txt is not UTF-8 \(line 1, byte 3\); save it as UTF-8, for example"),
        ("the sea ".encode("utf-16") * 100, r"text\.txt is not text \(it holds NUL bytes\); give plain text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"text\.txt is not text"),
        (b"word", r"text\.txt is too short to hold out its last 5%; give text with at least some thousand words"),
        (b"w" * 100_000, r"text\.txt is too short to hold out"),
    ],
    ids=["empty", "blank", "latin-1", "utf-16", "binary", "one-word", "no-blank"],
)
def test_an_unusable_text_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read_own_text(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_texts_and_a_file_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds no \.txt file; give a folder of UTF-8 text files"):
        read_own_text(tmp_path)
    (tmp_path / "a.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(CorpusError, match=r"holds no \.txt file"):
        read_own_text(tmp_path)


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("a\nb\n\nc\n", "a b\nc\n"),
        ("\n\n a \n\tb\n \t\n\n\nc", "a b\nc\n"),
        ("a", "a\n"),
        ("a\n", "a\n"),
        ("a\r\nb\r\n\r\nc\r\n", "a b\nc\n"),
    ],
)
def test_lines_are_joined_until_a_blank_one(text: str, joined: str) -> None:
    assert joined_lines(text) == joined
