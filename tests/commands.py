"""Commands run in this process, what a terminal would show of them, and programs that tests need."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest


def exit_status(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: object) -> int:
    """Exit status of a program's `main` with these arguments; what escapes it escapes this too."""
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command writes."""
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


def required(path: str | None, program: str) -> str:
    """The path of a program that was found. Where it was not, the test is skipped, or fails where CI is to have it."""
    if path is None:
        missing = f"needs {program} (Debian and Ubuntu: apt-get install {program})"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return path
