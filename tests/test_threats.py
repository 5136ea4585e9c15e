"""The table of threats: every line names tests, and they are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.source import ROOT

TEXT = (ROOT / "docs" / "threats.md").read_text()
LINES = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def functions_of(path: str) -> set[str]:
    """Names of the tests in a file."""
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("line", LINES, ids=[line[2:40] for line in LINES])
def test_a_threat_names_tests_that_there_are(line: str) -> None:
    threat, defence, tests = line.strip("| ").split(" | ")
    assert threat
    assert defence
    named = TEST.findall(tests)
    assert named
    assert TEST.sub("", tests).strip(", ") == "", "a test is not written as `tests/FILE.py::test_NAME`"
    for path, name in named:
        assert name in functions_of(path), (path, name)


def test_the_table_is_read_whole() -> None:
    assert len(LINES) == len([line for line in TEXT.splitlines() if "::test_" in line]) > 30
