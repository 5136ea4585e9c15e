"""The examples of documents: fenced blocks, and whether an answer is the one that a document shows."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.source import ROOT

ADDRESS = "127.0.0.1:8000"
"""Where documents have the server."""
FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<content>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
PROSE = re.compile(r"^(?!===)\S", re.MULTILINE)
NUMBER_OR_WORD = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|[^\W\d_]+")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    content: str
    indent: int
    line: int
    """Where its content begins."""
    prose: int
    """Lines at the margin before it, tabs left out: the same for all blocks of a group of tabs, and what follows it."""
    reason: str | None
    """Why it is not run: the comment before it."""


def blocks_of(document: Path) -> list[Block]:
    """Every fenced block of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            dedent(found["content"]),
            len(found["indent"]),
            text.count("\n", 0, found.start("content")) + 1,
            len(PROSE.findall(text, 0, found.start("indent"))),
            found["reason"],
        )
        for found in FENCE.finditer(text)
    ]


def assert_part_of(expected: Any, found: Any, where: str = "answer") -> None:
    """Everything in `expected` is in `found`; numbers within 1%, since processors round differently."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, where
            assert_part_of(value, found[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(expected) == len(found), where
        for i, (a, b) in enumerate(zip(expected, found, strict=True)):
            assert_part_of(a, b, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=0.01), where
    else:
        assert found == expected, where


def assert_lines_of(expected: str, found: str) -> None:
    """Every line of `expected` is one of `found`, in order; numbers within 1%, and what follows an ellipsis is open."""
    lines = iter(found.splitlines())
    for line in expected.splitlines():
        if line.strip(" …"):
            assert any(_alike(line, other) for other in lines), f"{line!r} is not printed, or not there, in:\n{found}"


def _alike(expected: str, found: str) -> bool:
    wanted, there = NUMBER_OR_WORD.findall(expected), NUMBER_OR_WORD.findall(found)
    if expected.endswith("…"):
        there = there[: len(wanted)]
    return len(wanted) == len(there) and all(_same(a, b) for a, b in zip(wanted, there, strict=True))


def _same(expected: str, found: str) -> bool:
    try:
        return bool(float(found) == pytest.approx(float(expected), rel=0.01))
    except ValueError:
        return found == expected


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def start_server(port: int, **changes: str) -> subprocess.Popen[bytes]:
    """`pru serve`, ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pru", "serve"],
        cwd=ROOT,
        env=os.environ | {"PRU_PORT": str(port)} | changes,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return process
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise
            time.sleep(0.1)


@contextmanager
def serving(**changes: str) -> Iterator[str]:
    """Host and port of a server of the bundled model, which ends well afterwards."""
    port = free_port()
    process = start_server(port, **changes)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(30) == 0
