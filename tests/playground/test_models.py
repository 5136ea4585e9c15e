"""The choice among several models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from model.bundle import open_bundle, write_manifest
from tests.app.models.bundles import write_models
from tests.app.processes import ROOT, Service, served
from tests.app.serving import until
from tests.playground.browsing import Watched
from tests.playground.conftest import OpenPage

START = "The film was released in the United"
MARKUP = '<img src="x" onerror="alert(1)"><script>alert(2)</script> & prose'


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A process that serves the bundled model by two names, the second of which says other things of itself."""
    folder: Path = tmp_path_factory.mktemp("two")
    for name in ("first", "second"):
        shutil.copytree(ROOT / "bundles" / "wikitext-2", folder / name)
    manifest = open_bundle(folder / "second").manifest
    write_manifest(folder / "second", manifest.model_copy(update={"intended_use": MARKUP, "limitations": None}))
    write_models(folder / "models.toml", "first", first="first", second="second")
    store = f"sqlite:///{folder}/sessions.db"
    with served("-m", "app", models=str(folder / "models.toml"), session_store=store, threads="1") as ready:
        until(lambda: bool(ready.events("a model answers")))
        yield ready


def test_another_model_is_chosen_and_the_text_stays(two_models: Service, open_page: OpenPage) -> None:
    watched = open_page(two_models.url)
    choice, names = watched.page.locator("#model-choice"), watched.page.locator("#model dd")
    expect(choice.locator("option")).to_have_text(["first", "second"])
    expect(choice).to_have_value("first")
    watched.type(START)
    expect(watched.chips.first).to_have_text("United")
    with watched.page.expect_request("**/sessions") as asked:
        choice.select_option("second")
    expect(names.first).to_have_text("second")
    expect(watched.page.locator("#model dt", has_text="Intended use").locator("+ dd")).to_have_text(MARKUP)
    expect(watched.page.locator("#model img, #model script")).to_have_count(0)
    expect(watched.page.locator("#model dt", has_text="Limitations")).to_have_count(0)
    expect(choice).to_have_value("second")
    expect(watched.text).to_have_value(START)
    assert json.loads(asked.value.post_data or "")["model"] == "second"
    watched.type(" ")
    expect(watched.chips.first).to_have_text("States")


def test_one_model_leaves_no_choice(watched: Watched) -> None:
    expect(watched.page.locator("#model dd").first).to_have_text("wikitext-2")
    expect(watched.page.locator("#model-choice")).to_be_hidden()
