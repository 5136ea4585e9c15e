"""Bundles that cannot be read, interruptions and outputs that take nothing: one line that says so, and status 2."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from model.bundle import sums_of
from model.vocabulary import Vocabulary
from tests.app.bundles import export_small_bundle
from tests.app.commands import run
from tests.app.fakes import NumpyEngine, fake_model
from tests.app.processes import ROOT, environment
from tests.commands import only_line

SHOW = """
import sys
from app import cli, served_model
from tests.app.fakes import fake_model
served_model.open_model = lambda _: fake_model()
sys.argv = ["app", *sys.argv[1:]]
cli.main()
"""
"""`python -m app` around a small model."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_bundle(tmp_path_factory.mktemp("small"))


def change(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields), encoding="utf-8")


ANSWERING = {"predict": ["predict", "the"], "score": ["score", __file__]}
COMMANDS = pytest.mark.parametrize(
    "arguments", [[], ["serve"], *ANSWERING.values()], ids=["no command", "serve", *ANSWERING]
)


@COMMANDS
@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_a_bundle_of_another_version_is_one_line_that_says_which(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    version: object,
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    change(other / "manifest.json", format_version=version)
    monkeypatch.setenv("PRU_BUNDLE", str(other))
    assert run(monkeypatch, *arguments) == 2
    line = only_line(capsys)
    assert line.startswith(f"error: {other / 'manifest.json'} has format version {version}, this program reads 2; ")
    assert "export the bundle again or use the program version that wrote it" in line


@COMMANDS
def test_a_bundle_whose_vocabulary_is_of_another_version_is_one_line(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    change(other / "tokenizer.json", version=2)
    sums = {name: entry.model_dump() for name, entry in sums_of(other).items()}
    change(other / "manifest.json", files=sums)
    monkeypatch.setenv("PRU_BUNDLE", str(other))
    assert run(monkeypatch, *arguments) == 2
    line = only_line(capsys)
    assert line.startswith(f"error: {other / 'tokenizer.json'} has version 2, not 1; ")
    assert "export the bundle again" in line


@COMMANDS
def test_a_checkpoint_in_the_place_of_a_bundle_is_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    checkpoint = bundle.parent / "checkpoint"
    monkeypatch.setenv("PRU_BUNDLE", str(checkpoint))
    assert run(monkeypatch, *arguments) == 2
    missing = f"error: {checkpoint / 'manifest.json'} is missing; give a folder that `pru export` wrote"
    assert only_line(capsys) == missing


@pytest.mark.parametrize("arguments", ANSWERING.values(), ids=ANSWERING)
@pytest.mark.parametrize("moment", ["opening", "building", "tokenising", "reading"])
def test_ctrl_c_at_any_stage_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], moment: str
) -> None:
    def press(*_: Any) -> Any:
        # To the process, as a terminal sends it: a signal raised in the engine's thread does not wake the main one.
        os.kill(os.getpid(), signal.SIGINT)

    has_text = threading.Event()
    tokenise = Vocabulary.tokenise

    def tokenise_and_note(*positional: Any, **options: Any) -> Any:
        has_text.set()
        if moment == "tokenising":
            press()
        return tokenise(*positional, **options)

    def build(size: int) -> NumpyEngine:
        def read() -> None:
            if moment == "reading" and has_text.is_set():
                press()
                time.sleep(0.1)

        if moment == "building":
            press()
        return NumpyEngine(size, before=read)

    opened = press if moment == "opening" else lambda _: fake_model(build=build)
    monkeypatch.setattr("app.served_model.open_model", opened)
    monkeypatch.setattr(Vocabulary, "tokenise", tokenise_and_note)
    assert run(monkeypatch, *arguments) == 2
    assert "interrupted" in only_line(capsys)


def shown(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """How a process with a small model ends, and what it prints."""
    return subprocess.run(
        [sys.executable, "-c", SHOW, *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **{"env": environment(), "stdout": subprocess.PIPE, **options},
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_terminal_that_cannot_show_a_character_is_shown_another(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the 🚢 harbour é 漢\n")
    status, printed = in_a_terminal("score", "--lines", str(tmp_path / "text.txt"), PYTHONIOENCODING=encoding)
    assert status == 0
    assert "harbour" in printed.decode(encoding)
    assert "error" not in printed.decode(encoding)


@pytest.mark.parametrize("arguments", [["predict", "the"], ["predict", "the", "--json"], ["score", __file__, "--json"]])
def test_a_disk_that_is_full_of_the_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = shown(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_reader_that_leaves_ends_the_output_without_a_complaint(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the sea\n" * 1_000)
    with subprocess.Popen(
        [sys.executable, "-c", SHOW, "score", str(tmp_path / "text.txt"), "--json"],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in {0, 1, 2, 141}


@pytest.mark.parametrize("option", ["--json", "--lines", "--each-line"])
def test_a_progress_bar_is_gone_before_anything_is_written_beside_it(option: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the sea\n" * 50)
    status, printed = in_a_terminal("score", option, str(tmp_path / "text.txt"))
    assert status == 0
    for line in printed.decode().splitlines():
        assert "scoring" not in line.rpartition("\x1b[2K")[2] or not {"┏", "{", "\t"} & set(line)


def in_a_terminal(*arguments: str, **changes: str) -> tuple[int, bytes]:
    """Status and output of a process on a terminal that both outputs go to, as `script` or `pty` makes one."""
    terminal, side = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SHOW, *arguments],
        env=environment() | {"COLUMNS": "80", "TERM": "xterm"} | changes,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
    ) as process:
        os.close(side)
        written = b""
        with contextlib.suppress(OSError):  # What Linux makes of the end of a terminal.
            while part := os.read(terminal, 1 << 16):
                written += part
        status = process.wait()
    os.close(terminal)
    return status, written
