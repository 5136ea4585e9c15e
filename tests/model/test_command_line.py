"""How every command ends when it cannot go on: one line on standard error, and status 2."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from model.command_line import errors_in_one_line
from model.errors import BundleError, CheckpointError, CorpusError, PRUError

ROOT = Path(__file__).parents[2]

PRESS_CTRL_C_AT_AN_IMPORT = """
import runpy, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == awaited:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

awaited, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Press())
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BundleError("manifest.json is missing; restore it"), "manifest.json is missing; restore it"),
        (CheckpointError("other version"), "other version"),
        (CorpusError("empty"), "empty"),
        (PRUError("something"), "something"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "a/b: No such file or directory"),
        (OSError("without a number"), "without a number"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_and_status_2(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        raise error
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {line}\n")


def test_a_process_that_leaves_speaking_to_another_says_its_own_errors_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error, said in (
        (CorpusError("empty"), ""),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
    ):
        with pytest.raises(SystemExit) as end, errors_in_one_line(speaks=False):
            raise error
        assert end.value.code == 2
        assert capsys.readouterr().err == said


def test_ctrl_c_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt)) as end, errors_in_one_line():
        raise KeyboardInterrupt
    assert isinstance(end.value, SystemExit)
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: interrupted")


def test_a_fault_of_the_program_is_not_made_one_line_since_its_place_is_needed() -> None:
    with pytest.raises(ZeroDivisionError), errors_in_one_line():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("command", "package"),
    [
        (["app", "predict", "the"], "typer"),
        (["app", "predict", "the"], "pydantic_settings"),
        (["app"], "uvicorn"),
        (["export", "--checkpoint", "nowhere", "--out", "nowhere"], "torch"),
        (["training", "presets"], "torch"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_ctrl_c_while_a_command_is_being_loaded_is_one_line_and_status_2(command: list[str], package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRESS_CTRL_C_AT_AN_IMPORT, package, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: interrupted")
    assert done.returncode == 2
