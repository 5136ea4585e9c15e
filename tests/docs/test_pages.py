"""Every fenced block of every page is run as it stands, shows what was printed, or says why it is not run."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.commands_of import check_commands
from tests.docs.programs import ECHO, OUTPUT, run_page, runnable, shown
from tests.examples import assert_lines_of, assert_part_of, blocks_of, serving
from tests.source import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
REASONS = {
    "another test runs it",
    "needs Docker",
    "needs a GPU",
    "needs a cluster",
    "needs Redis",
    "needs several machines",
    "reads a corpus for hours",
    "sets up an environment",
    "settings of another program",
    "runs without end",
}
"""Why a block may not be run."""
TEXT = ["The cat sat on the mat, and the old dog looked at it.", "The dog ran after the cat.", "It rained all day."]
"""What someone's own text says over and over."""
LINKED = ("benchmarks", "bundles", "checkpoints")
"""What of the checkout pages refer to."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Host and port of one server of the bundled model, for all pages."""
    with serving() as place:
        yield place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a page's programs run: as it were, the checkout, with someone's own text in it."""
    made = tmp_path / "work"
    made.mkdir()
    for name in LINKED:
        (made / name).symlink_to(ROOT / name)
    (made / "my-text.txt").write_text("\n".join(TEXT * 40) + "\n")
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run_or_is_output_or_has_a_reason(page: Path) -> None:
    blocks = blocks_of(page)
    of = {shown_.output for shown_ in shown(blocks)}
    assert [block for block in blocks if block not in {*runnable(blocks), *of} and block.reason is None] == []
    assert {block.reason for block in blocks if block.reason} <= REASONS
    fences = [
        line for line in page.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith(("```", "~~~"))
    ]
    assert len(fences) == 2 * len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(blocks_of(page))], ids=lambda page: page.stem)
def test_blocks_run_and_print_what_the_page_shows(page: Path, folder: Path, server: str) -> None:
    printed = run_page(page, folder, server)
    for pair in shown(blocks_of(page)):
        output = printed[pair.of.line]
        if pair.output.language == "json":
            assert_part_of(json.loads(pair.output.content), json.loads(output), f"line {pair.output.line}")
        else:
            assert_lines_of(pair.output.content, output)


@pytest.mark.parametrize(
    ("language", "content"),
    [
        pytest.param(block.language, block.content, id=f"{page.stem}-{block.line}")
        for page in PAGES
        for block in blocks_of(page)
        if block.reason
    ],
)
def test_what_is_not_run_is_well_formed_and_names_what_exists(language: str, content: str) -> None:
    match language:
        case "bash":
            subprocess.run(["bash", "-n", "-c", content], check=True)
            check_commands(content)
        case "python":
            compile(content, "block", "exec")
        case "toml":
            assert tomllib.loads(content)
        case "yaml":
            assert yaml.safe_load(content)
        case _:
            pytest.fail(
                f"no test knows blocks of {language or 'no language'}: {(*ECHO, *OUTPUT, 'toml', 'yaml')} are known"
            )
