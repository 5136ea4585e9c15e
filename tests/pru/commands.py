"""The command `pru` run in this process or in one of its own, and the examples that its help shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from pru.__main__ import main
from pru.cli import COMMANDS, load
from tests.commands import exit_status
from tests.source import ROOT

WITHOUT = """
import sys

refused = sys.argv[1].split(",")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
sys.argv = ["pru", *sys.argv[2:]]
from pru.__main__ import main
main()
"""
"""`pru` where some packages are not installed."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `pru ARGUMENTS`."""
    return exit_status(monkeypatch, main, *arguments)


def run_without(packages: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """How `pru ARGUMENTS` ends where these packages, with commas between them, cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100", "TERM": "dumb"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def leaves() -> dict[str, Any]:
    """Every command that does something, by all its words: a group stands for those in it."""
    found: dict[str, Any] = {}
    for name in COMMANDS:
        command = load(name)
        parts = getattr(command, "commands", None)
        found |= {f"{name} {part}": inner for part, inner in parts.items()} if parts else {name: command}
    return found


def examples() -> list[tuple[str, str]]:
    """Every example that the help of a command shows, with the name of that command."""
    found = []
    for name, command in ({name: load(name) for name in COMMANDS} | leaves()).items():
        heading, *lines = command.epilog.splitlines()
        assert heading == "Examples:"
        assert lines
        found += [(name, re.sub(r"\\\[", "[", line)) for line in lines]
    return found
