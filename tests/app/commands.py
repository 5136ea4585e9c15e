"""Commands of `python -m app` run in this process."""

from __future__ import annotations

import sys

import pytest

from app.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m app ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["app", *map(str, arguments)])
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
