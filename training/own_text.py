"""Anyone's own text: a file, or a folder of files, as the text to learn from and the text to choose by.

Boundary: files to strings. How text is written in tokens is `model.conventions`; named corpora are `training.corpus`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from model.errors import CorpusError
from model.files import read_text, readable, sha256_of

SPLITS = ("train", "valid", "test")
VALIDATION_SHARE = 0.05
"""Share of a text, its end, that is held out where nothing else is."""
SLACK = 0.02
"""Share of a text within which a line's end is looked for, so that no line is cut."""


@dataclass(frozen=True)
class OwnText:
    """Text of each split, and the sum of every file it came from. Without a file of its own there is no `test`."""

    splits: dict[str, str]
    sha256: dict[str, str]


def read_own_text(path: Path, *, join: bool = False) -> OwnText:
    """Read a file, or a folder: its `train.txt`, `valid.txt` and `test.txt`, or else every `.txt` in it and below.

    Files are read in order of their names. Without a `valid.txt` the last 5% of the text is validation. `join` makes a
    line of every paragraph (`joined_lines`).
    Raises `CorpusError`: no `.txt`, too little to hold anything out, or a file that is empty, binary or not UTF-8.
    """
    split_files = {split: file for split in SPLITS if (file := split_path(path, split)).is_file()}
    if "train" not in split_files:
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise CorpusError(f"{path} holds no .txt file; give a folder of UTF-8 text files, or one such file")
        splits = {"train": "".join(_read_lines(file, join) for file in files)}
    else:
        files = list(split_files.values())
        splits = {split: _read_lines(file, join) for split, file in split_files.items()}
    if "valid" not in splits:
        splits["train"], splits["valid"] = _held_out(path, splits["train"])
    base = path if path.is_dir() else path.parent
    return OwnText(splits, {readable(file.relative_to(base)): sha256_of(file) for file in files})


def split_path(folder: Path, split: str) -> Path:
    """Where a folder holds one of its `SPLITS`."""
    return folder / f"{split}.txt"


def joined_lines(text: str) -> str:
    """Text with one line a paragraph: lines are joined by blanks up to the next blank one, and those are left out."""
    paragraphs = re.split(r"\n(?:[^\S\n]*\n)+", text)
    lines = (" ".join(line.strip() for line in paragraph.split("\n")).strip() for paragraph in paragraphs)
    return "".join(f"{line}\n" for line in lines if line)


def _read_lines(file: Path, join: bool) -> str:
    """A file's text, its last line ended."""
    text = read_text(file, CorpusError)
    if not text or text.isspace():
        raise CorpusError(f"{file} is empty; give text with at least some thousand words, or leave the file out")
    if join:
        return joined_lines(text)
    return text if text.endswith("\n") else text + "\n"


def _held_out(path: Path, text: str) -> tuple[str, str]:
    """A text without its end, and the end: cut at a line's end where one is near, else between words."""
    middle = round(len(text) * (1 - VALIDATION_SHARE))
    cut = text.find("\n", middle, middle + round(len(text) * SLACK)) + 1
    if not 0 < cut < len(text.rstrip()):
        blank = re.compile(r"\s+(?=\S)").search(text, middle)
        if blank is None:
            raise CorpusError(
                f"{path} is too short to hold out its last 5%; give text with at least some thousand words"
            )
        cut = blank.end()
    return text[:cut].rstrip() + "\n", text[cut:]
