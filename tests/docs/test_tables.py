"""What pages list is what there is: settings, errors, commands, routes, and the figures of the bundled model."""

from __future__ import annotations

import re
from typing import Any

from app.errors import STATUS
from app.main import create_app
from app.settings import Settings
from pru.cli import COMMANDS
from tests.app.fakes import fake_model
from tests.source import ROOT
from tests.test_readme import figures

DOCS = ROOT / "docs"


def rows(page: str, heading: str) -> dict[str, str]:
    """The second cell of every row of the table below a heading, by the names in the first."""
    section = (DOCS / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE)
    return {name: cell for names, cell in found for name in re.findall(r"`([^`]+)`", names)}


def test_the_table_of_settings_is_the_settings() -> None:
    table = rows("operation.md", "Settings")
    assert table.keys() == {f"PRU_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        shown = table[f"PRU_{name.upper()}"]
        if field.default_factory is None and name not in {"bundle", "open_routes"}:
            assert shown == written(field.default), name
    assert set(table["PRU_OPEN_ROUTES"].strip("`").split(",")) == Settings.model_fields["open_routes"].default


def written(default: Any) -> str:
    """A default as the table has it."""
    if default in (None, "", ()):
        return "none"
    if isinstance(default, bool):
        return f"`{default}`".lower()
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_variables_that_pages_name_exist() -> None:
    known = {f"PRU_{name.upper()}" for name in Settings.model_fields}
    for page in DOCS.glob("*.md"):
        found = set(re.findall(r"\bPRU_[A-Z_]+", page.read_text(encoding="utf-8")))
        assert found <= known | {"PRU_API_KEY", "PRU_CACHE_DIR", "PRU_DATA_DIR", "PRU_URL"}, page


def test_the_table_of_errors_is_the_tree() -> None:
    table = rows("design.md", "Errors")
    assert table == {kind.__name__: str(status.value) for kind, status in STATUS.items()}


def test_every_command_has_its_options_on_the_page() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- options: ([a-z]+) -->", page)) == COMMANDS.keys()
    assert set(re.findall(r"^### ([a-z]+)$", page, re.MULTILINE)) == COMMANDS.keys()


def test_every_route_is_on_a_page() -> None:
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("http.md", "sessions.md", "openai.md"))
    paths = create_app(Settings(), fake_model()).openapi()["paths"]
    named = {path.replace("{session_id}", "{id}") for path in paths}
    assert {
        path for path in named if f"{path}`" not in pages and path.removeprefix("/sessions/{id}") not in pages
    } == set()


def test_the_bundled_models_figures_are_those_of_its_records() -> None:
    text = (DOCS / "numbers.md").read_text(encoding="utf-8")
    assert [name for name, figure in figures().items() if figure not in text] == []
