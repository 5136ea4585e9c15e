"""Checkpoints and texts that cannot be exported: one line that names the file, status 2, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.cli import main
from tests.export.samples import config_of, random_weights, write_checkpoint
from tests.model.faults import contents

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = config_of()
    return write_checkpoint(tmp_path / "checkpoint", config, random_weights(config))


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a `python -m export` that ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments), "--threads", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


def change(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields), encoding="utf-8")


def resize(folder: Path, **sizes: int) -> None:
    """Change sizes of the model that a checkpoint says it holds."""
    model = json.loads((folder / "config.json").read_bytes())["model"]
    change(folder / "config.json", model=model | sizes)


@pytest.mark.parametrize(
    ("harm", "file", "message"),
    [
        (lambda f: change(f / "config.json", format_version=2), "config.json", "has format version 2, this program"),
        (lambda f: change(f / "config.json", format_version=None), "config.json", "has format version None"),
        (lambda f: change(f / "tokenizer.json", version=2), "tokenizer.json", "has version 2, not 1"),
        (lambda f: (f / "config.json").write_bytes(b"{}"), "config.json", "has format version None"),
        (lambda f: (f / "config.json").write_bytes(b"[" * 100_000), "config.json", "is not valid JSON"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"\xff\xfe\0"), "tokenizer.json", "is not valid JSON"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors", "cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 100), "model.safetensors", "cannot be read"),
        (lambda f: (f / "training.json").write_bytes(b"[]"), "training.json", "does not hold an object"),
        (lambda f: resize(f, hidden_size=2**24), "model.safetensors", "config.json asks for"),
        (lambda f: resize(f, hidden_size=10**9), "config.json", "hidden_size: Input should be less than"),
        (lambda f: resize(f, embedding_size=10**30), "config.json", "embedding_size: Input should be less than"),
        (lambda f: resize(f, levels=10**9), "config.json", "levels: Input should be less than"),
    ],
    ids=[
        *("other version", "no version", "other vocabulary version", "no field", "deep", "binary vocabulary"),
        *("no weights", "binary weights", "record of another kind"),
        *("enormous model", "more numbers than there can be", "more than there are", "levels without end"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_none_is_one_line_that_names_the_file(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], Any],
    file: str,
    message: str,
) -> None:
    harm(checkpoint)
    line = refused(monkeypatch, capsys, "--checkpoint", checkpoint, "--out", tmp_path / "bundle")
    assert str(checkpoint / file) in line
    assert message in line
    assert set(tmp_path.iterdir()) == {checkpoint}


def test_a_checkpoint_s_vocabulary_of_another_version_says_how_to_mend_a_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkpoint / "tokenizer.json", version=2)
    line = refused(monkeypatch, capsys, "--checkpoint", checkpoint, "--out", tmp_path / "bundle")
    assert "export the checkpoint again" not in line
    assert "train again" in line or "the program version that wrote it" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the old men \0 sang", "is not text (it holds NUL bytes)"),
        ("the old men".encode("utf-16"), "is not text (it holds NUL bytes)"),
        (b"\x7fELF\x02\x01\x01\xf0", "is not UTF-8"),
        ("caf\xe9".encode("latin-1"), "is not UTF-8"),
        (b"", "holds no text"),
        (b" \n\r\n\t", "holds no text"),
    ],
    ids=["nul", "utf-16", "binary", "latin-1", "empty", "blank"],
)
def test_a_text_that_is_none_is_one_line_that_names_the_file(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(content)
    options = ("--checkpoint", checkpoint, "--out", tmp_path / "bundle", "--text", text)
    assert refused(monkeypatch, capsys, *options).startswith(f"error: {text} {message}")
    assert set(tmp_path.iterdir()) == {checkpoint, text}


def test_a_text_of_one_unknown_word_can_be_validated_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("x" * 1_000_000)
    options = ["--text", str(tmp_path / "text.txt"), "--precision", "float32", "--threads", "1"]
    arguments = ["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "bundle"), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
    # The word, and the end of the file.
    assert manifest["metrics"][0]["tokens"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 20])
def test_a_process_that_may_write_no_more_leaves_the_folder_as_it_was(
    checkpoint: Path, tmp_path: Path, blocks: int
) -> None:
    """The system itself cuts a file short, at a size that every file has and at one that only the weights have."""
    before = contents(tmp_path)
    export = ["-m", "export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "bundle"), "--threads", "1"]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -f {blocks}; exec "$0" "$@"', sys.executable, *export],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    error = done.stderr.strip().splitlines()[-1]
    assert error == f"error: {tmp_path / 'bundle'} cannot be written: File too large; nothing was left behind"
    assert contents(tmp_path) == before
