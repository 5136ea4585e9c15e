"""Commands of `python -m app` run in this process."""

from __future__ import annotations

import sys

import pytest

from app.cli import main
from tests.commands import exit_status


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m app ARGUMENTS`."""
    return exit_status(monkeypatch, main, *arguments)


def run_in_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The same where standard output, which pytest captures, says that it is a terminal."""
    with monkeypatch.context() as patched:
        patched.setenv("TERM", "dumb")
        patched.setattr(sys.stdout, "isatty", lambda: True)
        return run(patched, *arguments)
