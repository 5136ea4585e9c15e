"""Texts and checkpoints that cannot be trained on or evaluated: one line that names the file, and status 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import exit_status, only_line
from tests.model.faults import contents
from tests.training.conftest import recipe
from tests.training.records import record, saved
from training import presets
from training.cli import main
from training.presets import Preset

ROOT = Path(__file__).parents[2]
LINE = "the cat sat on the mat and looked at the dog\n"

NO_TEXT = pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\r\n\t\n", "is empty"),
        (b"the cat \0 sat\n" * 100, "is not text (it holds NUL bytes)"),
        ((LINE * 100).encode("utf-16"), "is not text (it holds NUL bytes)"),
        (b"\x89PNG\r\n\x1a\n" * 100, "is not UTF-8 (line 1, byte 0)"),
        (b"the cat\nsat on caf\xe9\n" * 100, "is not UTF-8 (line 2, byte 18)"),
        ((LINE * 100).encode("cp037"), "is not UTF-8"),
    ],
    ids=["empty", "blank", "nul", "utf-16", "binary", "latin-1", "ebcdic"],
)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of a few updates."""
    architecture = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}
    tiny = Preset("tiny", "for tests", architecture, recipe(epochs=1, bptt=10))
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, repeats in (("train", 10), ("valid", 2), ("test", 2)):
        (folder / f"{split}.txt").write_text(LINE * repeats)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training` with these arguments."""
    return exit_status(monkeypatch, main, *arguments)


@NO_TEXT
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_corpus_file_that_is_no_text_is_one_line_and_starts_nothing(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
    split: str,
) -> None:
    file = corpus / f"{split}.txt"
    file.write_bytes(content)
    assert run(monkeypatch, "train", "--data", corpus, "--preset", "tiny", "--out", tmp_path / "out") == 2
    assert only_line(capsys).startswith(f"error: {file} {message}")
    assert not (tmp_path / "out").exists()


@NO_TEXT
def test_a_text_to_evaluate_that_is_none_is_one_line(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    assert run(monkeypatch, "train", "--data", corpus, "--preset", "tiny", "--out", tmp_path / "out") == 0
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    capsys.readouterr()
    assert run(monkeypatch, "evaluate", "--checkpoint", tmp_path / "out", "--text", file) == 2
    assert only_line(capsys).startswith(f"error: {file} {message}")


def test_a_text_whose_name_is_no_utf_8_is_trained_on_evaluated_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.txt"))
    file.write_text(LINE * 20)
    out = tmp_path / "out"
    assert run(monkeypatch, "train", "--data", file, "--preset", "tiny", "--out", out) == 0
    assert run(monkeypatch, "evaluate", "--checkpoint", out, "--text", file, "--record") == 0
    told = json.loads((out / "training.json").read_bytes())
    assert told["data"]["name"] == r"\xff\xfe"
    assert list(told["data"]["sha256"]) == [r"\xff\xfe.txt"]
    assert told["evaluations"][0]["data"] == rf"{tmp_path}/\xff\xfe.txt"
    assert run(monkeypatch, "report", out, "--out", tmp_path / "results") == 0


def test_a_record_with_half_a_character_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "run", record("\ud800"))
    assert run(monkeypatch, "report", folder, "--out", tmp_path / "results") == 2
    assert only_line(capsys).startswith(f"error: {folder / 'training.json'} holds half a character, as in \\ud800")
    assert not (tmp_path / "results").exists()


def change(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields), encoding="utf-8")


def test_a_checkpoint_of_another_version_is_evaluated_by_no_program_but_its_own(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "train", "--data", corpus, "--preset", "tiny", "--out", out) == 0
    evaluation = ("evaluate", "--checkpoint", out, "--data", corpus)
    for name, field, message in (
        ("tokenizer.json", "version", "has version 7, not 1"),
        ("config.json", "format_version", "has format version 7, this program reads 1"),
    ):
        change(out / name, **{field: 7})
        capsys.readouterr()
        assert run(monkeypatch, *evaluation) == 2
        assert only_line(capsys).startswith(f"error: {out / name} {message}")


@pytest.mark.parametrize("content", [b"", b"\xff" * 1000, b"{}", LINE.encode()], ids=["empty", "ff", "json", "text"])
def test_a_run_whose_saved_state_is_damaged_is_not_resumed_and_not_touched(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
) -> None:
    out = tmp_path / "out"
    train = ("train", "--data", corpus, "--preset", "tiny", "--out", out)
    assert run(monkeypatch, *train, "--max-minutes", 0) == 0
    (out / "resume.safetensors").write_bytes(content)
    before = contents(out)
    capsys.readouterr()
    assert run(monkeypatch, *train, "--resume") == 2
    assert only_line(capsys).startswith(f"error: {out / 'resume.safetensors'} cannot be read")
    assert contents(out) == before


def test_what_is_advised_for_a_damaged_state_leads_to_a_finished_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train = ("train", "--data", corpus, "--preset", "tiny", "--out", out)
    assert run(monkeypatch, *train, "--max-minutes", 0) == 0
    state = out / "resume.safetensors"
    state.write_bytes(b"")
    capsys.readouterr()
    assert run(monkeypatch, *train, "--resume") == 2
    advice = only_line(capsys)
    if "delete it and start afresh" in advice:
        state.unlink()
        assert run(monkeypatch, *train) == 0, only_line(capsys)
    else:
        assert f"delete {out}" in advice
        shutil.rmtree(out)
        assert run(monkeypatch, *train) == 0
    assert json.loads((out / "training.json").read_bytes())["finished"]


def test_a_text_of_a_million_characters_without_a_blank_is_evaluated_as_one_unknown_word(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "train", "--data", corpus, "--preset", "tiny", "--out", tmp_path / "out") == 0
    (tmp_path / "long.txt").write_text("x" * 1_000_000)
    (tmp_path / "unknown.txt").write_text("<unk>\n")
    answers = []
    for name in ("long.txt", "unknown.txt"):
        capsys.readouterr()
        text = ("--text", tmp_path / name)
        assert run(monkeypatch, "evaluate", "--checkpoint", tmp_path / "out", *text, "--json") == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["tokens"] == answers[1]["tokens"] == 2
    assert answers[0]["perplexity"] == answers[1]["perplexity"]


@pytest.mark.slow
def test_a_process_that_may_write_no_more_leaves_no_half_of_a_file(corpus: Path, tmp_path: Path) -> None:
    """The system itself cuts the first large file short."""
    train = ["-m", "training", "train", "--data", str(corpus), "--preset", "small", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 100; exec "$0" "$@"', sys.executable, *train],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'out'} cannot be written: File too large; mend that, and ")
    assert contents(tmp_path / "out") == {}
