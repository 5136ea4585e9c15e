"""Commands of `python -m app` run in this process."""

from __future__ import annotations

import pytest

from app.cli import main
from tests.commands import exit_status


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m app ARGUMENTS`."""
    return exit_status(monkeypatch, main, *arguments)
